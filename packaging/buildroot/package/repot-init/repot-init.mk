################################################################################
#
# repot-init
#
################################################################################

REPOT_INIT_VERSION = 0.1.0
REPOT_INIT_SOURCE = repot-init-$(REPOT_INIT_TRIPLE)-v$(REPOT_INIT_VERSION).tgz
REPOT_INIT_SITE = $(call qstrip,$(BR2_PACKAGE_REPOT_INIT_SITE))
REPOT_INIT_LICENSE = Apache-2.0 or MIT
REPOT_INIT_LICENSE_FILES = LICENSE-APACHE LICENSE-MIT

# The release is named by the target of the compiler.
ifeq ($(BR2_x86_64),y)
REPOT_INIT_TRIPLE = x86_64-unknown-linux-musl
else ifeq ($(BR2_aarch64),y)
REPOT_INIT_TRIPLE = aarch64-unknown-linux-musl
else ifeq ($(BR2_i386),y)
REPOT_INIT_TRIPLE = i686-unknown-linux-musl
else ifeq ($(BR2_arm),y)
REPOT_INIT_TRIPLE = armv7-unknown-linux-gnueabihf
else ifeq ($(BR2_RISCV_64),y)
REPOT_INIT_TRIPLE = riscv64gc-unknown-linux-gnu
else ifeq ($(BR2_powerpc64le),y)
REPOT_INIT_TRIPLE = powerpc64le-unknown-linux-gnu
else ifeq ($(BR2_s390x),y)
REPOT_INIT_TRIPLE = s390x-unknown-linux-gnu
endif

REPOT_INIT_PROGRAM = $(if $(BR2_PACKAGE_REPOT_INIT_PAYLOAD),init-payload,init)
REPOT_INIT_SETTINGS = $(call qstrip,$(BR2_PACKAGE_REPOT_INIT_SETTINGS))

# What the script of Buildroot would do before it executes /sbin/init.
ifneq ($(BR2_ROOTFS_DEVICE_CREATION_STATIC),y)
REPOT_INIT_SETTINGS += mount=devtmpfs
endif

define REPOT_INIT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(REPOT_INIT_PROGRAM) $(TARGET_DIR)/init
	mkdir -p $(TARGET_DIR)/etc
	printf '%s\n' $(REPOT_INIT_SETTINGS) > $(TARGET_DIR)/etc/repot.conf
endef

$(eval $(generic-package))
