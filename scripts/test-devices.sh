#!/usr/bin/env bash
# Runs the tests on devices other than flex, which the gate runs them on.
#
#   scripts/test-devices.sh libtorch wgpu cuda:0
#   scripts/test-devices.sh remote
#
# remote is the tests of peers, between processes on this machine, what the feature adds to the others, and burn-train's
# data-parallel training by two peers.
# libtorch wants PyTorch 2.9.0: LIBTORCH_USE_PYTORCH=1, its python first in PATH, and LD_LIBRARY_PATH over
# torch/lib. wgpu in software wants Mesa's Vulkan driver (Debian: mesa-vulkan-drivers libvulkan1) and the name
# wgpu:cpu. One build per backend, of some minutes. REGROW_FEATURES adds cargo features, as cuda-cpp,autotune,fusion.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
# Where there is no such folder, Mesa says so, and tests that count lines of complaint count that.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$(mktemp -d)}"
failed=()

# Prunes while two peers, by the program that the tests before were run on, train: both have a batch in every step.
data_parallel() (
  trap 'kill $(jobs -p)' EXIT
  peers="$(mktemp -d)"
  for peer in a b; do
    target/release/regrow --device flex serve --bind 127.0.0.1:0 --lives 1h --ticket-file "$peers/$peer" &
  done
  until [ -s "$peers/a" ] && [ -s "$peers/b" ]; do sleep 0.1; done
  cargo run --release -p regrow-examples --features train,remote --example burn_train -- \
    --device "remote:@$peers/a,remote:@$peers/b" | tail -n 1 | grep 'sparsity 0.900'
)

for device in "$@"; do
  printf '\n== %s\n' "$device"
  if [ "$device" = remote ]; then
    cargo test --release --workspace --features regrow-cli/remote,regrow-bench/remote --no-fail-fast \
      --lib --test remote --test devices || failed+=("$device")
    data_parallel || failed+=("data-parallel training")
    continue
  fi
  REGROW_DEVICE="$device" cargo test --release --workspace --no-default-features \
    --features "regrow-cli/${device%%:*},regrow-bench/${device%%:*},regrow-cli/hub${REGROW_FEATURES:+,$REGROW_FEATURES}" --no-fail-fast --lib --bins --tests || failed+=("$device")
done
[ ${#failed[@]} -eq 0 ] || { printf 'failed on: %s\n' "${failed[*]}"; exit 1; }
