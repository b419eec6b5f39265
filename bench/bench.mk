# Benchmarks: limits of the machine, the shipped model, training. bench/README.md has results and what they were measured on.
MODEL ?= models/tales
RUNS  ?= 5

bench: coe ## speed beside the machine's limits: training, prefill, generation (MODEL=DIR, RUNS=N)
	@./coe bench $(MODEL) -r $(RUNS)
	@./coe bench train -r $(RUNS)
