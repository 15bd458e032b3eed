# shellcheck shell=bash
# One flow before and after its file was replaced: same end, less memory.

# ballast ROOT MIB: what makes the root as large as the system that it stands for. It compresses to about half.
ballast() {
    mkdir -p "$1/usr/share/ballast"
    local number
    seq 200000 > numbers
    for number in $(seq "$2"); do
        {
            head -c 400K /dev/urandom
            head -c 624K numbers
        } > "$1/usr/share/ballast/$number"
    done
}

# whole ROOT: what the report says of a root that has all of it.
whole() {
    echo "REPORT ballast $(cat "$1"/usr/share/ballast/* | wc -c) bytes"
}

# archive ROOT IMAGE: as every builder of such images does it.
archive() {
    (cd "$1" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet | gzip -1) > "$2"
}

try_memory() {
    # shellcheck disable=SC2153 # set by smallest
    boot "$MEMORY" try.txt "$IMAGE" "$APPEND"
}

# measure NAME APPEND: the smallest machine that has the whole root.
measure() {
    IMAGE=$1.img
    APPEND=$2
    smallest try.txt 112 304 "$whole" try_memory
}

# compare APPEND: boots before.img and after.img: the same end, all of the root, and what is in use then.
compare() {
    local name whole
    whole=$(whole root)
    for name in before after; do
        boot 512 $name.txt $name.img "$1"
        has $name.txt "REPORT root tmpfs" "REPORT pivot_root works" "$whole" "REPORT end"
        echo "    $name: in use $(sed -n 's/.*REPORT used //p' $name.txt | tr -d '\r')"
    done
    lacks before.txt "repot: "
    has after.txt "repot: move: "
}

# payload APPEND CONFIG...: the same root as a payload, whose init is repot from the start.
payload() {
    local append=$1 whole setting words=()
    shift
    for setting; do words+=(--config "$setting"); done
    whole=$(whole root)
    rm -f root/init root/init.real root/etc/repot.conf
    "$REPOT" pack root --payload "${words[@]}" -o payload.img > /dev/null
    boot 512 payload.txt payload.img "$append"
    has payload.txt "repot: payload: " "REPORT root tmpfs" "$whole" "REPORT end"
    echo "    payload: in use $(sed -n 's/.*REPORT used //p' payload.txt | tr -d '\r')"
}
