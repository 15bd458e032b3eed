/* krun vmlinux vm.img: a machine of libkrun with a kernel and an initramfs. Build: cc krun.c -lkrun -o krun */
#include <libkrun.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	int ctx;

	if (argc != 3) {
		fprintf(stderr, "usage: krun vmlinux vm.img\n");
		return 2;
	}
	ctx = krun_create_ctx();
	if (ctx < 0 || krun_set_vm_config(ctx, 1, 256) ||
	    krun_set_kernel(ctx, argv[1], KRUN_KERNEL_FORMAT_ELF, argv[2],
			    "console=hvc0 panic=-1 reboot=k run.exit=vsock:5000") ||
	    /* The exit code comes to this socket of the host. */
	    krun_add_vsock_port(ctx, 5000, "vm.exit")) {
		fprintf(stderr, "krun: cannot configure the machine\n");
		return 1;
	}
	/* Returns only if it fails. */
	krun_start_enter(ctx);
	fprintf(stderr, "krun: cannot start the machine\n");
	return 1;
}
