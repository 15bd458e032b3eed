#!/bin/bash
# programs: cc=gcc jq=jq
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

step "the configuration files are what they claim to be"
for file in firecracker cloud-hypervisor; do
    jq -e . "$FILES/$file.json" > /dev/null || fail "$file.json is no JSON"
done
# The declarations of libkrun's header, as its documentation has them: the library is not packaged here.
mkdir include
cat > include/libkrun.h <<'Y'
#include <stdint.h>
#define KRUN_KERNEL_FORMAT_ELF 1
int32_t krun_create_ctx(void);
int32_t krun_set_vm_config(uint32_t ctx_id, uint8_t num_vcpus, uint32_t ram_mib);
int32_t krun_set_kernel(uint32_t ctx_id, const char *kernel_path, uint32_t kernel_format, const char *initramfs,
			const char *cmdline);
int32_t krun_add_vsock_port(uint32_t ctx_id, uint32_t port, const char *c_filepath);
int32_t krun_start_enter(uint32_t ctx_id);
Y
cc -Wall -Wextra -Werror -fsyntax-only -Iinclude "$FILES/krun.c"

# The image runs one program, and powers the machine off.
busybox_root root
"$REPOT" pack root --run --onexit poweroff -o vm.img -- /bin/report > /dev/null
cp "$KERNEL" vmlinuz

step "QEMU microvm, from its configuration file"
# Without KVM the clock of the CPU must be given: the machine has nothing to measure it by.
sed 's/panic=-1/panic=-1 tsc_early_khz=1000000/' "$FILES/qemu-microvm.cfg" > machine.cfg
timeout 300 qemu-system-x86_64 -readconfig machine.cfg -accel tcg,thread=single -cpu max -nodefaults \
    -display none -no-reboot < /dev/null > microvm.txt
has microvm.txt "REPORT pivot_root works" "REPORT end" "reboot: Power down"
grep -a -o 'REPORT root.*\|REPORT used.*' microvm.txt
step "done"
