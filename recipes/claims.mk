claims: coe ## train the recipes of published comparisons that have no result yet; docs/results.md
	@scripts/claims
	@scripts/comparisons
