"""The environment of a run, line by line.

environment  the checks in their order (on_ray: those that need Ray); result: one of their lines
machine      versions, devices, memory, disks; storage: output_dir and data; access: token and dashboard
cluster      the cluster of RAY_ADDRESS; nodes: each of its nodes, by probe
distributed  two workers that really train
"""
