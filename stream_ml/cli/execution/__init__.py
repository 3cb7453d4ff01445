"""The subcommands that run stages or models themselves: loaded when run, not for their help."""
