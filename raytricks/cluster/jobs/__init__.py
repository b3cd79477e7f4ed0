"""Commands that run on a cluster, as Ray jobs.

address     of the dashboard that jobs go to; dashboard: requests to it
files       what travels with a job; package: copies of it, as a runtime_env
command     what a job runs, with paths that the cluster can see
submission  checks, packs and submits a command
job         ask for a job, follow or stop it, with log and client (Ray's own)
"""
