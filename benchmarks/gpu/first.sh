#!/bin/sh
# The first ten minutes on a GPU: the bare passes, the step, a short training, its evaluation, and the tests for devices.
#   sh benchmarks/gpu/first.sh FOLDER OUT
# FOLDER holds CIFAR-10, or a part of it, as parquet files with whole sets of shards; OUT gets the full output.
# A failure of one part does not end the others. DEVICE=cpu rehearses it; FLAGS are more flags of the trainings.
data=$1 out=$2 device=${DEVICE:-cuda}
images="--data parquet --data.root $data --data.image-column img --device $device $FLAGS"
mkdir -p "$out"
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
began=$(date +%s)
part() { echo "== $(($(date +%s) - began)) s: $1"; }

part "bare passes"
timeout 120 python3 benchmarks/gpu/passes.py --device "$device" $PASSES > "$out/passes.txt" 2>&1 || echo "failed: $?"
grep -E "product|F .* I .* P|torch|Error" "$out/passes.txt" | cut -c1-160
for graph in auto off; do
  part "training steps, --cuda-graph $graph"
  timeout 120 python3 -m regmix bench step cifar10-regmix $images --methods "${METHODS:-regmix,fgsm_pgk,pgd_at,trades}" \
    --rounds "${ROUNDS:-60}" --cuda-graph $graph > "$out/step-$graph.txt" 2>&1 || echo "failed: $?"
  tail -n 7 "$out/step-$graph.txt"
  METHODS=regmix
done
part "a short training"
timeout 120 python3 -m regmix train cifar10-regmix $images --train-examples "${EXAMPLES:-4500}" --validation 200 \
  --validate-every 5 --lr 0.05 --epochs "${EPOCHS:-20}" --out "$out/runs/short" > "$out/training.txt" 2>&1 || echo "failed: $?"
tail -n 3 "$out/training.txt"
grep -o '"images_per_second":[^,]*\|"waited":[^,]*' "$out/runs/short/metrics.jsonl" | tail -n 2
part "its evaluation"
(
  timeout 150 python3 -m regmix evaluate "$out/runs/short" --attacks pgd-10,autoattack-screened,autoattack --eps 4/255 \
    --examples 100 --checkpoint best --device "$device"
  timeout 150 python3 benchmarks/autoattack.py "$out/runs/short" --examples 100 --device "$device"
) > "$out/evaluation.txt" 2>&1 || echo "failed: $?"
grep -E "autoattack|Error" "$out/evaluation.txt" | cut -c1-160
part "the tests for devices"
REGMIX_TEST_DEVICE=$device timeout "${TESTS:-240}" python3 -m pytest -q -n "${WORKERS:-12}" -p no:cacheprovider --tb=short \
  --durations=15 -m "device and not slow" $(grep -rlE "mark\.device" tests --include="test_*.py") > "$out/tests.txt" 2>&1
grep -E "^(FAILED|ERROR)| passed| failed" "$out/tests.txt" | cut -c1-200 | tail -n 60
part "done"
