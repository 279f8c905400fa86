# PyTorch in the very versions of the pinned image, as the files it adds to the Debian root.
# usage: torch.sh DEST DEBIAN TRUST
set -eu
dest=$1 debian=$2 trust=$3
work="$dest.work" merged="$dest.merged"

mkdir -p "$dest" "$work" "$merged"
mount -t overlay overlay -o "lowerdir=$debian,upperdir=$dest,workdir=$work" "$merged"
mount -t proc proc "$merged/proc"
mount --rbind /dev "$merged/dev"
cp /etc/resolv.conf "$merged/etc/resolv.conf"
cp "$trust/ca-certificates.crt" "$merged/etc/ssl/certs/ca-certificates.crt"
cp "$trust/pip.conf" "$merged/etc/pip.conf"
# TMPDIR: pip unpacks several GB, more than a tmpfs may hold.
mkdir -p "$merged/var/tmp"
env -i PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin HOME=/root TMPDIR=/var/tmp \
    chroot "$merged" pip install --no-cache-dir --progress-bar off torch==2.8.0 torchvision==0.23.0 numpy
chroot "$merged" python3 -c 'import torch, torchvision; assert torch.__version__.startswith("2.8.0")'
umount -l "$merged/dev" "$merged/proc" "$merged"
rm -rf "$work" "$merged" "$dest/root" "$dest/tmp" "$dest/var"
