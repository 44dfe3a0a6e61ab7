# The models: each has as many parameters as its published or PyTorch counterpart.
# sanitize: yes
. "$(dirname "$0")/common.sh"

parameters() { # parameters MODEL [OPTION...]: how many are trained
    local model=$1
    shift
    "$segc" "$root/models/$model.seg" --summary "$@" | sed -n 's/^Parameters, all trained *//p' | tr -d ,
}
counted=0
count() { # count MODEL PARAMETERS [OPTION...]
    local model=$1 expected=$2 found
    shift 2
    found=$(parameters "$model" "$@")
    [ "$found" = "$expected" ] || echo "     $model: $found parameters, expected $expected"
    [ "$found" = "$expected" ]
    result "$model $* has $expected" $?
    counted=$((counted + ($# == 0)))
}
count unet 31037633
count unet_classes $((31037633 + 2 * 65))
count unet_small 482737
count unet_bilinear 17262977
count attention_unet 34878573
count unet_plus_plus 9163329
count resnet34_unet 24427186
count resnet34_unet_paper 22853978
count deeplabv3_resnet34 26007105
count mobilenetv2_unet 2648009
count mobilenetv2_unet $((2648009 - 2223872)) --freeze 'features.*'
count deeplabv3_resnet34 4722433 --freeze 'conv1.*,bn1.*,layer*'
check "every model is in this list" \
    test "$(grep -lE '^model ' "$root"/models/*.seg | wc -l)" = $counted
finish
