SUMMARY = "The /init of systems that live in their initramfs"
DESCRIPTION = "Moves the root onto a real tmpfs, with every attribute, and then executes the real init."
HOMEPAGE = "https://repot.example/repot"
BUGTRACKER = "https://repot.example/repot/issues"
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "\
    file://LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
    file://LICENSE-MIT;md5=1b769714991d2086481ab9e6d716d871 \
"

# The release is named by the target of the compiler.
REPOT_TRIPLE = ""
REPOT_TRIPLE:x86-64 = "x86_64-unknown-linux-musl"
REPOT_TRIPLE:aarch64 = "aarch64-unknown-linux-musl"
REPOT_TRIPLE:x86 = "i686-unknown-linux-musl"
REPOT_TRIPLE:armv7a = "armv7-unknown-linux-gnueabihf"
REPOT_TRIPLE:armv7ve = "armv7-unknown-linux-gnueabihf"
REPOT_TRIPLE:riscv64 = "riscv64gc-unknown-linux-gnu"
REPOT_TRIPLE:powerpc64le = "powerpc64le-unknown-linux-gnu"

# A folder of this machine (file:///path) or an address.
REPOT_RELEASE ?= "${HOMEPAGE}/releases/download/v${PV}"
REPOT_ARCHIVE = "repot-init-${REPOT_TRIPLE}-v${PV}"
# From SHA256SUMS of the release, set in local.conf or in the configuration of the distribution.
REPOT_SHA256 ?= ""

SRC_URI = "${REPOT_RELEASE}/${REPOT_ARCHIVE}.tgz;name=release"
SRC_URI[release.sha256sum] = "${REPOT_SHA256}"

S = "${UNPACKDIR}/${REPOT_ARCHIVE}"
# Before Yocto 5.1 archives are unpacked into WORKDIR.
UNPACKDIR ??= "${WORKDIR}"

# "init-payload" also unpacks images of `repot pack --payload`.
REPOT_PROGRAM ?= "init"
# Lines of /etc/repot.conf, separated by spaces. Yocto's image has no script that mounts /dev.
REPOT_SETTINGS ?= "mount=devtmpfs"

COMPATIBLE_HOST = "(x86_64|aarch64|i.86|arm|riscv64|powerpc64le).*-linux"

# Nothing is compiled.
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${sysconfdir}
    install -m 0755 ${S}/${REPOT_PROGRAM} ${D}/init
    printf '%s\n' ${REPOT_SETTINGS} > ${D}${sysconfdir}/repot.conf
}

FILES:${PN} += "/init ${sysconfdir}/repot.conf"
CONFFILES:${PN} = "${sysconfdir}/repot.conf"
# It is released stripped and static.
# nooelint: oelint.vars.insaneskip
INSANE_SKIP:${PN} += "already-stripped ldflags"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
INHIBIT_SYSROOT_STRIP = "1"
