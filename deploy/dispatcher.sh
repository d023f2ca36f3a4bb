#!/bin/sh
# The dispatcher's container: joins the Ray cluster as a node without CPUs, which Ray wants of a program that gives out
# work, then serves. Settings come from the environment; exec hands signals on to neurosweep.
set -eu

ray start --address="$RAY_ADDRESS" --node-manager-port="$NODE_MANAGER_PORT" \
    --num-cpus=0 --num-gpus=0 --object-store-memory=1000000000 >/dev/null
exec neurosweep serve
