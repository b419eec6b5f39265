# Benchmarks: limits of the machine, the shipped model, training. bench/README.md has results and what they were measured on.
MODEL  ?= models/tales
REPEAT ?= 5

bench: coe ## speed beside the machine's limits: training, prefill, generation (MODEL=DIR, REPEAT=N)
	@./coe bench $(MODEL) -r $(REPEAT)
	@./coe bench train -r $(REPEAT)
	@./coe bench train recipes/bench/moe31m.yaml -r $(REPEAT)
	@./coe bench train recipes/bench/gpt2_124m.yaml -r $(REPEAT)
