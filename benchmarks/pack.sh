#!/bin/sh
# Packs the records of one seed (and the times of steps) of `regmix reproduce`, without weights: sh benchmarks/pack.sh FOLDER SEED ARCHIVE.tar.xz
set -e
folder=$1 seed=$2 archive=$(realpath "$3")
cd "$folder"
more=$(ls -d flatness/*-seed"$seed".json cost 2>/dev/null || true)
tar --sort=name --owner=0 --group=0 --mtime="$(date -u +%F)" \
    --exclude '*.safetensors' --exclude '*.pt' --exclude '*.npz' --exclude images.csv --exclude predictions.csv \
    --exclude '.*.lock' --exclude '*.log' --exclude '*journal*' -cJf "$archive" runs/*-seed"$seed" $more
ls -l "$archive"
