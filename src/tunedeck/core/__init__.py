"""What every other room stands on: errors, messages, units, measurements. Loads no torch."""
