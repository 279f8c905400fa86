# Makes the namespaces that it was started in into a machine of its own, and becomes that machine's init.
# usage: unshare --mount --uts --pid --fork --kill-child sh box.sh DIR NAME LOWER [FROM:TO]...
#   DIR    holds machine-id and boot_id; its folder box/ is where the root is mounted
#   LOWER  root file systems, read only, the uppermost first (overlayfs's lowerdir)
#   FROM:TO  folders of the real machine that appear in the box
set -eu
dir=$1 name=$2 lower=$3
shift 3

mount --make-rprivate /
mount -t tmpfs -o mode=0755 box "$dir/box"
mkdir "$dir/box/upper" "$dir/box/work" "$dir/box/root"
root="$dir/box/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/box/upper,workdir=$dir/box/work" "$root"

mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=0755 run "$root/run"
mkdir -m 1777 "$root/run/lock"
mkdir -p -m 0755 "$root/run/sshd" "$root/run/lab"

mount -t tmpfs -o mode=0755 dev "$root/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "$root/dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 "$root/dev/tty" c 5 0
# Four GPUs and their control files. They are the null device: nobody computes here.
for node in nvidia0 nvidia1 nvidia2 nvidia3 nvidiactl nvidia-uvm; do mknod -m 666 "$root/dev/$node" c 1 3; done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "$root/dev/${number#*:}"; done

for pair in "$@"; do
    mkdir -p "$root${pair#*:}"
    mount --bind "${pair%%:*}" "$root${pair#*:}"
done

cp "$dir/machine-id" "$root/etc/machine-id"
mount --bind "$dir/boot_id" "$root/proc/sys/kernel/random/boot_id"
cp /etc/resolv.conf "$root/etc/resolv.conf"
hostname "$name"
printf '%s\n' "$name" >"$root/etc/hostname"
printf '127.0.0.1 localhost %s\n::1 localhost\n' "$name" >"$root/etc/hosts"

cd "$root"
mkdir .old
pivot_root . .old
exec chroot . /bin/sh -c 'umount -l /.old && rmdir /.old && cd / && cat /proc/sys/kernel/random/boot_id >/run/lab/up && exec "$@"' sh \
    /usr/bin/tini -- sleep infinity
