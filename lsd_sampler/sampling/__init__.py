"""One generation: noise, times, orders, solvers, draws."""
