# Fuzz targets: tests/fuzz/fuzz_NAME.c feeds one reader. Built with clang into build-fuzz, where new inputs are kept too;
# tests/fuzz/corpus/NAME holds the few that are committed. tests/fuzz/LOG adds up what was run (LOG=1 appends a row).

FUZZ_CC    ?= clang
FUZZ       := build-fuzz
RUNS       ?= 1000000
FUZZ_SRC   ?= $(filter-out src/cli/%,$(SRC))
# loops run on one thread, see include/omp.h; warnings are gcc's business
FUZZ_FLAGS  = $(STD:-fopenmp=) -w $(INCLUDES) \
	-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION -Itests/fuzz/include -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=undefined
# the vector kernels read no files: they come from the ordinary build
FUZZ_OBJ    = $(FUZZ_SRC:%.c=$(FUZZ)/%.o) $(foreach i,$(ISAS),$(KERN:%.c=$(BUILD)/%.$(i).o)) $(VNNI) $(FUZZ)/parts.o
FUZZ_ALL   := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

$(FUZZ)/%.o: %.c
	@mkdir -p $(@D); $(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link,address,undefined -MMD -MP -c -o $@ $<

# the registry without the verbs, which are not linked here
$(FUZZ)/parts.c: $(BUILD)/parts.c
	@mkdir -p $(@D); sed '/coe_part_verb_/d' $< > $@
$(FUZZ)/parts.o: $(FUZZ)/parts.c
	@$(FUZZ_CC) $(FUZZ_FLAGS) -Isrc -c -o $@ $<

$(FUZZ)/libcoe.a: $(FUZZ_OBJ)
	@rm -f $@; ar rcs $@ $(FUZZ_OBJ)

$(FUZZ)/fuzz_%: tests/fuzz/fuzz_%.c $(FUZZ)/libcoe.a
	@$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer,address,undefined -o $@ $< $(FUZZ)/libcoe.a $(LIBS)

fuzz: $(if $(NAME),$(FUZZ)/fuzz_$(NAME)) ## fuzz one reader: make fuzz NAME=safetensors [RUNS=n] [LOG=1]
	@test -n "$(NAME)" || { echo "usage: make fuzz NAME=x [RUNS=n] [LOG=1] [TIMEOUT=s]   x: $(FUZZ_ALL)"; exit 2; }
	@mkdir -p $(FUZZ)/corpus/$(NAME)
	@$(FUZZ)/fuzz_$(NAME) -runs=$(RUNS) -max_len=65536 -timeout=$(or $(TIMEOUT),5) -rss_limit_mb=2048 \
		$(addprefix -dict=,$(wildcard tests/fuzz/$(NAME).dict)) -artifact_prefix=$(FUZZ)/$(NAME)- \
		$(FUZZ)/corpus/$(NAME) tests/fuzz/corpus/$(NAME) > $(FUZZ)/$(NAME).out 2>&1 \
		|| { tail -40 $(FUZZ)/$(NAME).out; exit 1; }
	@cov=$$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' $(FUZZ)/$(NAME).out); \
	runs=$$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' $(FUZZ)/$(NAME).out); \
	row=$$(printf '%-14s %-10s %12s %8s  %s' $(NAME) $$(git rev-parse --short HEAD) $$runs $$cov $$(date +%F)); \
	echo "$$row"; if [ -n "$(LOG)" ]; then echo "$$row" >> tests/fuzz/LOG; fi

-include $(FUZZ_OBJ:.o=.d)
