"""The Ray layer: the only package that imports ray.

session   connect to a cluster or start one on this machine, quietly
driver    launch the workers of a run, follow them, pass signals on
trainer   Ray Train's trainer of a run, and what came of it
worker    what runs in each of them: a thin shell around training.run_epochs
pace      lockstep of a trial with its workers

tune_driver       carry out the trials of a study, follow them, pass signals on
tuner             Ray Tune's Tuner for them, with tune_schedulers and tune_search (Optuna)
tune_trial        trials of one worker, in actors that stay; tune_nested: of several workers
tune_events       what happens to trials, told and noted

authentication    Ray's token: where it is, when it is used, who can read it
job_address       of the dashboard that jobs go to; dashboard: requests to it
job_files         what travels with a job, by job_ignore; job_package: copies of it, as a runtime_env
job_command       what a job runs, with job_paths that the cluster can see
submission        checks, packs and submits a command
jobs              ask for a job, follow or stop it, with job_info, job_log and job_client (Ray's own)

check             the environment of a run, line by line (check_result): check_machine, check_storage, check_access
check_cluster     the cluster of RAY_ADDRESS; check_nodes: each of its nodes, by check_probe
check_distributed two workers that really train
"""
