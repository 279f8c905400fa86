# What a GPU host has beside Debian: sshd, rsync, a Docker engine, a registry, and the lab's users.
# usage: host.sh DEST DEBIAN TRUST
set -eu
dest=$1 debian=$2 trust=$3

cp -a "$debian" "$dest"
mv "$dest/usr/share/gpurun-lab/EXTERNALLY-MANAGED" "$dest/usr/lib/python3.11/"
cp /etc/resolv.conf "$dest/etc/resolv.conf"
mount -t proc proc "$dest/proc"
mount --rbind /dev "$dest/dev"
# No service may start while its package is installed: it would be this machine's, not the lab's.
printf '#!/bin/sh\nexit 101\n' >"$dest/usr/sbin/policy-rc.d"
chmod 755 "$dest/usr/sbin/policy-rc.d"

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
chroot "$dest" apt-get update
chroot "$dest" apt-get install -y --no-install-recommends \
    openssh-server rsync docker.io iptables iproute2 docker-registry sudo tmux fish tcsh
rm -f "$dest"/etc/ssh/ssh_host_* "$dest"/var/cache/apt/archives/*.deb

# `*` is a password that never fits; `!` would make sshd refuse the account altogether.
add_user() {
    chroot "$dest" groupadd --gid "$1" "$2"
    chroot "$dest" useradd --uid "$1" --gid "$1" --password '*' --shell /bin/bash "$2"
}
add_user 21001 gpurun-ada
add_user 21002 gpurun-bob
add_user 21003 gpurun-carl
add_user 21004 gpurun-pat
add_user 21005 gpurun-sue
for user in gpurun-ada gpurun-bob gpurun-pat; do chroot "$dest" usermod -aG docker "$user"; done
printf 'gpurun-pat:lab password\n' | chroot "$dest" chpasswd -c SHA512
printf 'gpurun-sue ALL=(root) NOPASSWD: /usr/bin/docker\n' >"$dest/etc/sudoers.d/gpurun-sue"
chmod 440 "$dest/etc/sudoers.d/gpurun-sue"

cat >"$dest/etc/ssh/sshd_config" <<'CONFIG'
ListenAddress 127.0.0.1
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
LogLevel VERBOSE
Subsystem sftp /usr/lib/openssh/sftp-server
Match User gpurun-pat
    PasswordAuthentication yes
CONFIG
cp "$trust/ca-certificates.crt" "$dest/etc/ssl/certs/ca-certificates.crt"
umount -l "$dest/dev" "$dest/proc"
