#!/bin/sh
# Stands before the image's gpgv while apt is given what was recorded. A key or a signature that has
# expired was good when it was recorded, or apt would have refused it then. Whatever else gpgv finds
# wrong stays wrong.
for program in gpgv gpgv2 gpgv1; do
    command -v "$program" >/dev/null && break
done
# apt reads the verdict on a signature from this descriptor, and asks for options elsewhere.
case " $* " in
*" --status-fd 3 "*) ;;
*) exec "$program" "$@" ;;
esac
verdict=$("$program" "$@" 3>&1 >/dev/null)
code=$?
printf '%s\n' "$verdict" | sed \
    -e 's/^\[GNUPG:\] EXPKEYSIG /[GNUPG:] GOODSIG /' \
    -e 's/^\[GNUPG:\] EXPSIG /[GNUPG:] GOODSIG /' >&3
exit "$code"
