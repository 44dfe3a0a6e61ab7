# segrun on the CUDA device, with stand-ins for the driver and NVRTC: everything but the kernels'
# arithmetic. sanitize: yes
. "$(dirname "$0")/common.sh"
small_model
small_data
export SEG_CUDA_LIBRARIES=$build/cuda_stub SEG_CACHE=$work/cache OMP_NUM_THREADS=2
printf 'leak:libfontconfig\n' >suppressions # plots: not ours
export LSAN_OPTIONS=suppressions=$work/suppressions:print_suppressions=0
recipe="--data pets -b 4 -e 2"

# which device
ok "-d auto with a GPU" "$segrun" bench tiny.plan -n 1
says "takes it" '^device cuda: Stub 0, .*, tf32, NVRTC 13\.0$'
says "and builds its kernels" '^tiny, program train|cuda: Stub 0'
ok "in bf16" "$segrun" bench tiny.plan -d cuda:0 --precision bf16 -n 1 --no-tune
says "says so" 'bf16, NVRTC'
STUB_DEVICES=0 ok "-d auto without one" "$segrun" bench tiny.plan -n 1
says "takes the cpu and says why" '^device cpu: .*; not cuda: no GPU'
STUB_DEVICES=0 fails 3 "-d cuda without one" "$segrun" bench tiny.plan -d cuda
says "has a hint" '^hint: '
STUB_CAPABILITY=75 fails 3 "tf32 on an old GPU" "$segrun" bench tiny.plan --precision tf32 -d cuda
says "offers fp32" 'hint: use --precision fp32'
SEG_CUDA_LIBRARIES=/nowhere fails 3 "no driver" "$segrun" bench tiny.plan -d cuda
says "says so" 'no NVIDIA driver'
fails 2 "a device that is none" "$segrun" bench tiny.plan -d cuda:one
"$segc" tiny.seg --target host -o host.plan >/dev/null
fails 1 "a plan without kernels for it" "$segrun" bench host.plan -d cuda
says "says how to get them" 'segc --target host,cuda'
"$segc" tiny.seg --target cuda --precision fp32 -o fp32.plan >/dev/null
ok "a plan without kernels for the cpu" "$segrun" bench fp32.plan -n 1 --no-tune
says "runs in the precision that it has" '^device cuda: .*, fp32,'
STUB_DEVICES=0 fails 3 "and needs a GPU" "$segrun" bench fp32.plan
fails 1 "a precision that it has not" "$segrun" bench fp32.plan --precision bf16
says "says how to get it" 'segc --target cuda --precision bf16'

# every command
# shellcheck disable=SC2086
ok "train" "$segrun" train tiny.plan $recipe -d cuda -p run
says "two epochs" '^epoch 2/2'
ok "eval" "$segrun" eval tiny.plan -m run/tiny.last.safetensors --data pets -d cuda
ok "predict" "$segrun" predict tiny.plan -m run/tiny.last.safetensors "$(find pets/images -name '*.jpg' | sort | head -n 1)" -d cuda -o out
ok "tune" "$segrun" tune tiny.plan -d cuda -b 3
says "names the programs" 'predict +batch 3 is tuned'
fails 2 "tune of two plans" "$segrun" tune tiny.plan tiny.plan -d cuda
says "is the cpu's" 'on a GPU one plan has all the ways'
ok "-v" "$segrun" bench tiny.plan -n 1 -d cuda -v
says "says what was loaded" 'libnvrtc\.so\.13 builds for sm_90a'
says "and of every kernel" '^kernel .* registers'

# what goes wrong in the middle
# shellcheck disable=SC2086
STUB_FAIL=cuGraphLaunch:20:719 fails 3 "the GPU is lost" "$segrun" train tiny.plan --data pets -b 4 -e 9 -d cuda --no-tune -p lost
says "the call is named" 'Stub 0: cuGraphLaunch: '
says "and the command that goes on" 'hint: segrun train tiny\.plan --data pets -r lost/tiny\.last\.safetensors'
ok "which works" "$segrun" train tiny.plan --data pets -r lost/tiny.last.safetensors -e 3 -d cuda --no-tune
# shellcheck disable=SC2086
STUB_MEMORY=210000000 fails 3 "too little memory" "$segrun" bench tiny.plan -b 4096 -d cuda
says "says what fits" 'the largest batch that fits is [0-9]+'
SEG_DEBUG=2 ok "SEG_DEBUG=2" "$segrun" bench tiny.plan -n 1 -d cuda --no-tune
says "prints every launch" '^launch .*<<<[0-9]+, [0-9]+, [0-9]+>>>'
STUB_NVRTC=12040 STUB_DRIVER=12020 STUB_UNLOADABLE=1 fails 3 "a driver older than NVRTC" "$segrun" bench tiny.plan -d cuda -n 1
says "says so" 'hint: the driver \(CUDA 12\.2\) is older than NVRTC 12\.4'
finish
