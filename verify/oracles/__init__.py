"""Who else knows the derivative. Each oracle returns a value and a bound on its own error, and abstains where it has none."""
