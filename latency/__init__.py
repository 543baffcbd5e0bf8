"""Block -> milliseconds on one device: tables, builders, predictors, checks."""

