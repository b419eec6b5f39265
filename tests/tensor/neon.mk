# The NEON level on a machine that is not AArch64: tests/tensor/kernel_digest.c and the rooms it needs, cross-compiled into
# one static program beside the tests, where test_neon.c finds it. Where the compiler or the emulator is missing, plain
# `make tests` leaves it out and the test is skipped.
NEON_CC  ?= aarch64-linux-gnu-gcc
NEON_RUN ?= qemu-aarch64
NEON_DIGEST := $(BUILD)/tests/tensor/kernel_digest.aarch64
ifneq ($(ARCH),aarch64)
NEON_HERE := $(and $(shell command -v $(NEON_CC)),$(shell command -v $(NEON_RUN)))
endif

# what the digest is linked with: all of tensor, and of base what that needs
DIGEST_BASE := error mem log
DIGEST_OBJ  := $(filter $(BUILD)/src/tensor/%,$(OBJ)) $(DIGEST_BASE:%=$(BUILD)/src/base/%.o)
$(BUILD)/kernel_digest: tests/tensor/kernel_digest.c $(DIGEST_OBJ)
	@echo "  LINK  $@"; $(CC) $(ALL_C) -Itests -MMD -MP -MF $@.d -o $@ $< $(DIGEST_OBJ) -lm
-include $(BUILD)/kernel_digest.d

# made anew by the make of the other architecture, which knows what is out of date
$(NEON_DIGEST): neon_again
	@mkdir -p $(@D); $(MAKE) -s --no-print-directory ARCH=aarch64 CC=$(NEON_CC) BUILD=$(BUILD)/aarch64 PKGS= \
		EXTRA="-static -Wl,--no-warnings" $(BUILD)/aarch64/kernel_digest
	@cmp -s $(BUILD)/aarch64/kernel_digest $@ || cp $(BUILD)/aarch64/kernel_digest $@

tests: $(if $(NEON_HERE),$(NEON_DIGEST))

neon: $(NEON_DIGEST) $(BUILD)/tests/tensor/test_neon ## the NEON kernels under an emulator, compared with this machine's (needs an AArch64 cross compiler and qemu-user)
	@scripts/run-tests $(BUILD)/tests tensor/test_neon
.PHONY: neon neon_again
