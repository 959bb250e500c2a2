"""The rules: no I/O of their own, only what `ports` promises."""
