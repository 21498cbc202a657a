"""Sources as a whole: counts that add up, the decision at the limit, the register, the blacklist."""
