"""Between regmix and the machine: devices, memory layout, processes, sharded weights, signals, files, locks."""
