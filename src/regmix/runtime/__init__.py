"""What lies between regmix and the machine: devices, memory layout, processes, sharded weights, signals, files, locks.

It imports only the vocabulary (types, threats, objectives). Every folder that computes or writes may import it.
"""
