#!/usr/bin/env bash
# From photographs to a page of results, on two CPU cores in under a quarter of an hour:
#
#     pip install -e '.[cuda13,demo]'
#     examples/story.sh            # into runs/story; or: examples/story.sh FOLDER
#
# The photographs are those that scikit-image carries, and the cut-outs are drawn, so that nothing has to be fetched.
# The network is far from trained after it: the scores show that all works, not how good the method is.
# A call that was stopped goes on where it was.
set -euo pipefail

out=${1:-runs/story}
pretrain_steps=${PRETRAIN_STEPS:-200}
finetune_steps=${FINETUNE_STEPS:-250}
network=(--model unet_resnet18 --resume auto)
checkpoint() { printf '%s/checkpoints/step-%09d.pt' "$1" "$2"; }

say() { printf '\n== %s\n' "$*"; }

say "72 photographs to learn from without labels; 48 cut-outs for fine-tuning, 6 others for the test"
python -m dptmat.demo "$out/photos" "$out/cutouts"

say "What pre-training shows the network: $out/preview.png"
dptmat preview --data "$out/photos" --out "$out/preview.png"

say "Pre-training, without labels"
dptmat pretrain --data "$out/photos" --out "$out/pretrain" "${network[@]}" \
    --size 128 --steps "$pretrain_steps" --batch-size 16 --lr 5e-4

say "Fine-tuning on cut-outs"
dptmat finetune --fg "$out/cutouts/train" --bg "$out/photos" --out "$out/finetune" "${network[@]}" \
    --init "$(checkpoint "$out/pretrain" "$pretrain_steps")" --size 192 --steps "$finetune_steps" --batch-size 4

say "A test set: each of the other cut-outs over two photographs"
rm -rf "$out/test"
dptmat compose --fg "$out/cutouts/test" --bg "$out/photos" --out "$out/test" --each 2

say "Scores"
rm -rf "$out/finetune/evaluation"
dptmat evaluate --checkpoint "$(checkpoint "$out/finetune" "$finetune_steps")" \
    --image "$out/test/merged" --trimap from-alpha --alpha "$out/test/alpha_copy" --out "$out/finetune/evaluation"

say "The page"
dptmat report --run "$out/finetune" --images "$out/test" --out "$out/report.html"
echo "open $out/report.html"
