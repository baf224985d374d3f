#!/bin/sh
# Runs the commands of README.md with tiny settings on a CPU: sh benchmarks/gpu/rehearse.sh CIFAR10 [OUT]
set -e
data=$1 out=${2:-/tmp/regmix-rehearsal}
tiny="--device cpu --train-examples 600 --validation 50 --epochs 2 --validate-every 2 --model.width 4"
rm -rf "$out"

for graph in auto on; do
  regmix bench step cifar10-regmix $tiny --epochs 5 --methods regmix --rounds 2 --data.root "$data" --cuda-graph $graph
done
# Interrupted after a while, and resumed.
timeout -s TERM 100 regmix train cifar10-regmix $tiny --data.root "$data" --out "$out/regmix" || [ $? -eq 124 ] || [ $? -eq 143 ]
regmix train --resume "$out/regmix"
regmix evaluate "$out/regmix" --attacks pgd-50,autoattack --eps 8/255,16/255 --examples 4 --checkpoint best --device cpu
# The steps recorded and repeated: the same weights, bit for bit.
regmix train cifar10-regmix $tiny --data.root "$data" --cuda-graph on --out "$out/recorded"
cmp "$out/regmix/last.safetensors" "$out/recorded/last.safetensors"
