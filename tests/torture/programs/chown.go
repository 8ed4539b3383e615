// Makes a file and a link in the folder it is given and gives them away, as Go's programs do it:
// without a C library.
package main

import (
	"os"
	"path/filepath"
	"strconv"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	uid, err := strconv.Atoi(os.Args[2])
	check(err)
	gid, err := strconv.Atoi(os.Args[3])
	check(err)
	file, link := filepath.Join(os.Args[1], "chowned"), filepath.Join(os.Args[1], "link")
	check(os.WriteFile(file, []byte("go\n"), 0o644))
	check(os.Symlink("chowned", link))
	check(os.Chown(file, uid, gid))
	check(os.Lchown(link, uid, gid))
}
