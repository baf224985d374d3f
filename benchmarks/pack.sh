#!/bin/sh
# Packs the records of one seed of `regmix reproduce`, without weights: sh benchmarks/pack.sh FOLDER SEED ARCHIVE.tar.xz
set -e
folder=$1 seed=$2 archive=$(realpath "$3")
cd "$folder"
tar --sort=name --owner=0 --group=0 --mtime="$(date -u +%F)" \
    --exclude '*.safetensors' --exclude '*.pt' --exclude '*.npz' --exclude images.csv --exclude predictions.csv \
    --exclude '.*.lock' --exclude '*.log' --exclude '*journal*' -cJf "$archive" runs/*-seed"$seed"
ls -l "$archive"
