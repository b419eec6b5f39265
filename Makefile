# coe — `make` builds ./coe and build/libcoe.a; `make help` lists the other targets.

CC       ?= gcc
BUILD    ?= build
PROGRAM  ?= coe
PREFIX   ?= /usr/local
OPT      ?= -O3
# Tests are linked without debug information: every one of them would hold a copy of the library's, 4 GB in all. For a
# debugger: make TESTLD= build/tests/…
TESTLD   ?= -Wl,-S
# -ffp-contract=off: a product and a sum are rounded twice unless the source says fma, whatever -m flags a file gets.
# -fno-math-errno -fno-trapping-math: allow sqrt and comparisons in vector loops; neither changes a result.
CFLAGS   ?= $(OPT) -g
WARN     := -Wall -Wextra -Werror -Wvla -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual
STD      := -std=gnu11 -fopenmp -ffp-contract=off -fno-math-errno -fno-trapping-math -D_GNU_SOURCE
PKGS     := jansson yaml-0.1 libpcre2-8 libutf8proc libzstd libxxhash liblzma zlib yajl libedit
INCLUDES := -Isrc $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS     := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm
ALL_C     = $(STD) $(WARN) $(INCLUDES) $(CFLAGS) $(EXTRA)

ARCH := $(shell uname -m)
# src/tensor/cpu/*.c are compiled once for each level; lanes.h gives them the registers of that level.
ISAS := portable
ifeq ($(ARCH),x86_64)
ISAS += avx2 avx512
endif
ifeq ($(ARCH),aarch64)
ISAS += neon
endif
FLAGS_avx2   := -mavx2 -mfma -mf16c
# vnni is avx512 but for the quantised products (cpu/q_*.c)
ifeq ($(ARCH),x86_64)
VNNI := $(patsubst %.c,$(BUILD)/%.vnni.o,$(wildcard src/tensor/cpu/q_*.c))
endif
FLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512
FLAGS_vnni   := $(FLAGS_avx512) -mavx512vnni
# q_row.c's requests to memory stay beside the loads they run ahead of: scheduled into bunches they halve its speed
# (bench/kernels/q_row.md). Not every compiler has the option.
AS_WRITTEN := $(shell $(CC) -Werror -fno-schedule-insns2 -E -x c /dev/null >/dev/null 2>&1 && echo -fno-schedule-insns2)
$(foreach i,$(ISAS) vnni,$(BUILD)/src/tensor/cpu/q_row.$(i).o): ALL_C += $(AS_WRITTEN)

SRC    := $(filter-out src/tensor/cpu/%,$(shell find src -name '*.c' | LC_ALL=C sort))
KERN   := $(wildcard src/tensor/cpu/*.c)
OBJ    := $(SRC:%.c=$(BUILD)/%.o) $(foreach i,$(ISAS),$(KERN:%.c=$(BUILD)/%.$(i).o)) $(VNNI) $(BUILD)/parts.o
LIBOBJ := $(filter-out $(BUILD)/src/cli/%,$(OBJ))
TESTS  := $(shell find tests -name 'test_*.c' | LC_ALL=C sort)
TESTBIN := $(TESTS:%.c=$(BUILD)/%)
SUPPORT := $(wildcard tests/support/*.c)
SUPPORTOBJ := $(SUPPORT:%.c=$(BUILD)/%.o)
EXAMPLES := $(patsubst examples/%.c,$(BUILD)/examples/%,$(wildcard examples/*.c))

# plain `make` uses all processors; a make under it shares them
ifeq (0,$(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)))
MAKEFLAGS += -j$(shell nproc)
endif

all: $(PROGRAM) $(BUILD)/libcoe.a
.PHONY: all tests test golden gradient check asan fuzz bench claims tidy clean install help docs
.SECONDARY:

$(PROGRAM): $(OBJ)
	@echo "  LINK  $@"; $(CC) $(STD) $(CFLAGS) $(EXTRA) -o $@ $(OBJ) $(LIBS)

# One relocatable object inside the archive: the registry's parts are all linked wherever libcoe.a is.
$(BUILD)/libcoe.a: $(OBJ)
	@echo "  AR    $@"; rm -f $@; ld -r -o $(BUILD)/libcoe.o $(OBJ:$(BUILD)/src/cli/main.o=) && ar rcs $@ $(BUILD)/libcoe.o

$(BUILD)/%.o: %.c
	@mkdir -p $(@D); echo "  CC    $<"; $(CC) $(ALL_C) -MMD -MP -c -o $@ $<

define KERNEL_RULE
$(BUILD)/src/tensor/cpu/%.$(1).o: src/tensor/cpu/%.c
	@mkdir -p $$(@D); echo "  CC    $$< ($(1))"; $(CC) $$(ALL_C) $(FLAGS_$(1)) -DISA=$(1) -DISA_$(1)=1 -MMD -MP -c -o $$@ $$<
endef
$(foreach i,$(ISAS) $(if $(VNNI),vnni),$(eval $(call KERNEL_RULE,$(i))))

# The registry: every COE_PART(kind, name, …) under src/, sorted. Rewritten only when the list changes.
$(BUILD)/parts.c: $(SRC) scripts/parts
	@mkdir -p $(@D); scripts/parts src > $@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(BUILD)/parts.o: $(BUILD)/parts.c
	@echo "  CC    $<"; $(CC) $(ALL_C) -c -o $@ $<

$(BUILD)/tests/%: tests/%.c $(SUPPORTOBJ) $(BUILD)/libcoe.a
	@mkdir -p $(@D); echo "  TEST  $<"; $(CC) $(ALL_C) -Itests -MMD -MP -MF $@.d -o $@ $< $(SUPPORTOBJ) $(BUILD)/libcoe.a $(LIBS) -lcmocka $(TESTLD)
$(BUILD)/tests/support/%.o: tests/support/%.c
	@mkdir -p $(@D); $(CC) $(ALL_C) -Itests -MMD -MP -c -o $@ $<

# examples use the public header and the archive only
$(BUILD)/examples/%: examples/%.c $(BUILD)/libcoe.a
	@mkdir -p $(@D); $(CC) -std=c11 -Wall -Wextra -Werror -fopenmp $(CFLAGS) $(EXTRA) -Iinclude -o $@ $< $(BUILD)/libcoe.a $(LIBS)

tests: $(PROGRAM) $(TESTBIN) $(EXAMPLES) ## build the tests and the examples

test: tests ## build and run the tests; ends with "N passed, N failed, N skipped"
	@COE=./$(PROGRAM) scripts/run-tests $(BUILD)/tests $(NAME)

golden: $(PROGRAM) $(filter $(BUILD)/tests/golden/%,$(TESTBIN)) ## only the golden tests; COE_FIXTURES=DIR takes them from elsewhere
	@COE=./$(PROGRAM) scripts/run-tests $(BUILD)/tests/golden

gradient: $(filter $(BUILD)/tests/gradient/%,$(TESTBIN)) ## only the gradient tests: FP64 twins against central differences
	@scripts/run-tests $(BUILD)/tests/gradient

check: test

asan: ## the tests under AddressSanitizer and UBSan, in build-asan
	@LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp $(MAKE) BUILD=build-asan PROGRAM=build-asan/coe OPT=-O1 TESTLD= EXTRA="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" test

-include tests/tensor/neon.mk
-include tests/fuzz/fuzz.mk
-include bench/bench.mk
-include recipes/claims.mk

tidy: ## style rules (scripts/style) and clang-tidy
	@scripts/style && if command -v clang-tidy >/dev/null; then clang-tidy --quiet $(filter-out src/tensor/cpu/%,$(SRC)) -- $(STD:-fopenmp=) -I/usr/lib/gcc/$(ARCH)-linux-gnu/12/include $(INCLUDES); else echo "clang-tidy is not installed: only scripts/style ran"; fi

docs: coe ## docs/methods.md, the table of methods, from the registry
	@./coe methods --markdown > docs/methods.md.part && mv docs/methods.md.part docs/methods.md

install: all ## coe, libcoe.a and coe.h under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include
	install coe $(DESTDIR)$(PREFIX)/bin/; install -m644 $(BUILD)/libcoe.a $(DESTDIR)$(PREFIX)/lib/; install -m644 include/coe.h $(DESTDIR)$(PREFIX)/include/

clean:
	rm -rf build build-asan build-fuzz coe

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile tests/tensor/neon.mk tests/fuzz/fuzz.mk bench/bench.mk recipes/claims.mk 2>/dev/null | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{ printf "  %-10s %s\n", $$1, $$2 }'

-include $(OBJ:.o=.d) $(TESTBIN:=.d) $(SUPPORTOBJ:.o=.d)
