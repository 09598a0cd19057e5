"""The files that `dstack init` writes: they run as they are, and their comments say what else there is."""

from __future__ import annotations

WORKFLOWS = """\
# The steps of this project. `dstack run train` runs `train` and what it depends on;
# what already ran with the same code, variables and inputs is reused.
workflows:
  - name: prepare
    help: Make the data
    commands:
      - mkdir -p data
      - seq 1 $rows > data/numbers.txt
    artifacts: [data]                # kept in the bucket; in place again for those who depend on it

  - name: train
    help: Add it up
    # image: python:3.11-slim        # run in a container; without it, straight on the host
    depends-on:
      workflows: [prepare]
      # repo: {include: [train.py]}  # files that the result depends on; default: all
      # variables: [scale]           # variables it depends on; default: all
    commands:
      - mkdir -p model
      - awk -v scale="$scale" '{sum += $1} END {print sum * scale}' data/numbers.txt | tee model/sum.txt
    artifacts: [model]
    # env: {PYTHONUNBUFFERED: "1"}
    # resources: {cpu: 4, memory: 16GB, gpu: 1}
    # retry: {attempts: 3, on: [lost]}
    # max-duration: 6h
"""
VARIABLES = """\
# Named values. Commands see them as environment variables, `$scale`, or all at once as
# `$variables_as_args`. Override with `dstack run train --scale 3`.
variables:
  global: {}
  prepare:
    rows: 100
  train:
    scale: 2
"""
HOSTS = """\
# Your servers: reached by SSH, nothing to install but python3 and git. Easier than editing:
#   dstack hosts add gpu-1 --address 10.0.0.5 --user ubuntu
# Without any host, this machine runs everything.
hosts: {}
  # gpu-1:
  #   address: 10.0.0.5              # default: the name, looked up in ~/.ssh/config
  #   user: ubuntu
  #   port: 22
  #   identity-file: ~/.ssh/id_ed25519
  #   jump: bastion                  # another host of this file or of ~/.ssh/config
  #   slots: 2                       # jobs at a time; default: one for each GPU, else half the cores
"""
CONFIG = """\
# Where logs, artifacts and state are kept; everybody with the same bucket and project sees the same runs.
# Default: a folder below ~/.dstack.
# bucket: s3://my-team/dstack
# project: my-project                # default: the path of the git remote, else the name of the folder
"""
FILES = {"workflows.yaml": WORKFLOWS, "variables.yaml": VARIABLES, "hosts.yaml": HOSTS, "config.yaml": CONFIG}
