#!/bin/bash
# Process 1 of a guest: sets the machine up, runs the cases that scripts/guests compares, switches
# off. What is to be known is written to the console after "log=" on the kernel's command line, a case as
#
#   case NAME STATUS SECONDS, its lines of output each after "| ", end
#
# The words there after "cases=" say which ones.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t securityfs security /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null
log=/dev/$(sed -n 's/.*log=\([^ ]*\).*/\1/p' /proc/cmdline)
exec >"$log" 2>&1
stty -F "$log" raw -echo 2>/dev/null || true
hostname guest
ip link set lo up
cd /guest
declare -A uids=([root]=0 [range]=54331 [single]=54332)

# Runs a command as one of the users, with a store of theirs.
as() {
    local user=$1
    shift
    setpriv --reuid "${uids[$user]}" --regid "${uids[$user]}" --clear-groups \
        env HOME="/state/$user/home" USER="$user" OCIBUILD_STORE="${store:-/state/$user/store}" TMPDIR=/tmp "$@"
}

# One case; its name first.
run() {
    local name=$1 began=$EPOCHSECONDS status=0
    shift
    "$@" >/out 2>&1 </dev/null || status=$?
    echo "case $name $status $((EPOCHSECONDS - began))"
    tail -n 60 /out | sed 's/^/| /'
    echo end
}

wanted() { case ,$cases, in *,$1,* | ,,) ;; *) return 1 ;; esac; }

import() { as "$1" /guest/ocibuild -q import "/guest/$2.tar" --name "localhost/$3" >/dev/null; }
build() { as "$1" /guest/ocibuild --mode "$1" build "$2" "${@:3}"; }

fresh() {
    rm -rf "/state/$1"
    mkdir -p "/state/$1/store" "/state/$1/home"
    chown -R "${uids[$1]}:${uids[$1]}" "/state/$1"
}

cases=$(sed -n 's/.*cases=\([^ ]*\).*/\1/p' /proc/cmdline)
for user in range single; do
    echo "$user:x:${uids[$user]}:${uids[$user]}::/state/$user/home:/bin/sh" >>/etc/passwd
    echo "$user:x:${uids[$user]}:" >>/etc/group
done
echo range:1500000000:65536 >/etc/subuid
echo range:1500000000:65536 >/etc/subgid
for user in root range single; do fresh $user; done

facts() {
    uname -r
    echo "lsm $(cat /sys/kernel/security/lsm)"
    echo "apparmor $(cat /sys/module/apparmor/parameters/enabled)"
    (cd /proc/sys/kernel && grep -s . yama/ptrace_scope apparmor_* unprivileged_userns_clone) || true
}
run facts facts

for user in root range single; do
    wanted doctor && run "doctor-$user" as $user /guest/ocibuild doctor
done

# A base of a few megabytes, in memory and on disk.
tiny() {
    import "$1" tiny tiny:1 && build "$1" tiny && build "$1" tiny --no-cache --memory 0
}
for user in root range single; do
    wanted tiny && run "tiny-$user" tiny $user
done

torture() { import "$1" debian debian-base:bookworm && build "$1" guest --memory 0; }
for user in single range root; do
    wanted torture && run "torture-$user" torture $user
    fresh $user
done

# An image from its definition, lock and inputs, without a network; the date is the guest's.
audit() {
    chown -R "${uids[single]}:${uids[single]}" /guest/store /guest/checkout
    cd /guest/checkout
    local store=/guest/store status=0
    as single /guest/ocibuild audit --offline "$(cat /guest/audited)" || status=$?
    date --utc
    cd /guest
    return $status
}
[ ! -e /guest/audited ] || { wanted audit && run audit audit; }

# A store that root may not write as root, and that keeps no owners but the caller's.
nfs() {
    local user=$1
    local store=/nfs/$user
    import "$user" tiny tiny:1 && build "$user" tiny --scratch "/state/$user/home"
    build "$user" tiny --no-cache --memory 0 --scratch "/state/$user/home" && findmnt -n -o FSTYPE,SOURCE /nfs
}
if wanted nfs; then
    modprobe nfsd
    mkdir -p /export /nfs /proc/fs/nfsd /var/lib/nfs/rpc_pipefs
    for user in root range single; do mkdir -m 777 -p "/export/$user"; chown "${uids[$user]}" "/export/$user"; done
    chown 65534 /export/root
    start() {
        mount -t tmpfs -o mode=755 export /export.mem 2>/dev/null
        mount -t nfsd nfsd /proc/fs/nfsd
        echo '/export 127.0.0.1(rw,root_squash,no_subtree_check,insecure,fsid=7)' >/etc/exports
        rpcbind -w || true
        exportfs -ar && rpc.nfsd --no-nfs-version 3 4 && rpc.mountd --no-nfs-version 3
        mount -t nfs -o vers=4.2 127.0.0.1:/export /nfs
    }
    run nfs-mount start
    for user in single range root; do run "nfs-$user" nfs $user; done
    umount /nfs
fi

# AppArmor: a profile that lets a program do all but mount, and the restriction of user namespaces
# where the kernel has it.
if wanted apparmor; then
    cat >/etc/apparmor.d/guest <<'END'
#include <tunables/global>
profile guest /guest/confined {
  capability, network, file, signal, ptrace, unix, dbus,
  /** mrwlkix,
}
END
    cp /guest/ocibuild /guest/confined
    run apparmor-load apparmor_parser -r /etc/apparmor.d/guest
    run apparmor-confined as single /guest/confined doctor
    restrict=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
    if [ -e $restrict ]; then
        echo 1 >$restrict
        run apparmor-userns as single /guest/ocibuild doctor
        echo 0 >$restrict
    fi
fi

# Few namespaces, and only for root.
if wanted sysctl; then
    echo 0 >/proc/sys/kernel/unprivileged_userns_clone && run userns-clone-0 as single /guest/ocibuild doctor
    echo 1 >/proc/sys/kernel/unprivileged_userns_clone
    old=$(cat /proc/sys/user/max_user_namespaces)
    echo 0 >/proc/sys/user/max_user_namespaces && run max-userns-0 as single /guest/ocibuild doctor
    echo "$old" >/proc/sys/user/max_user_namespaces
fi

# Yama last: 3 can't be taken back.
if wanted yama; then
    for scope in 1 2 3; do
        echo $scope >/proc/sys/kernel/yama/ptrace_scope
        for user in single range root; do
            fresh $user
            run "yama-$scope-$user" tiny $user
        done
        run "yama-$scope-doctor" as single /guest/ocibuild doctor
    done
fi
run dmesg sh -c 'dmesg | grep -iE "oops|BUG|overlay|hung" | tail -n 20'
echo "all done"
sync
echo o >/proc/sysrq-trigger
sleep 60
