package config

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// The kernel's own tables (include/uapi/linux/rtnetlink.h, rt_class_t).
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255
)

func parseTable(text string) (uint32, error) {
	id, err := tableNumber(text)
	switch {
	case err != nil:
		return 0, err
	case id == 0:
		return 0, fmt.Errorf("%s means no table", text)
	case id == tableLocal:
		return 0, fmt.Errorf("%s is the table of the host's own addresses, which the kernel keeps", text)
	case id > 4294967295:
		return 0, fmt.Errorf("%s is out of range", text)
	}
	return uint32(id), nil
}

func tableNumber(text string) (uint64, error) {
	switch text {
	case "main":
		return tableMain, nil
	case "default":
		return tableDefault, nil
	case "local":
		return tableLocal, nil
	}
	if isDigits(text) {
		return parseUint(text)
	}
	if id, ok := tableByName(os.DirFS("/"), text); ok {
		return id, nil
	}
	return 0, fmt.Errorf("%q is no table that iproute2 knows", text)
}

// tableByName looks a name up where ip(8) does: a file in /etc hides its namesake in
// /usr/share, which iproute2 6.5 and later have; those in rt_tables.d add to it.
func tableByName(root fs.FS, name string) (id uint64, ok bool) {
	for _, dir := range []string{"etc/iproute2", "usr/share/iproute2"} {
		files := []string{path.Join(dir, "rt_tables")}
		more, err := fs.Glob(root, path.Join(dir, "rt_tables.d", "*.conf"))
		if err == nil { // the pattern is ours; unreadable directories are skipped
			files = append(files, more...)
		}
		for _, file := range files {
			if id, ok := tableInFile(root, file, name); ok {
				return id, true
			}
		}
	}
	return 0, false
}

// tableInFile reads lines "NUMBER NAME", the number in decimal or 0x hexadecimal.
func tableInFile(root fs.FS, file, name string) (id uint64, ok bool) {
	f, err := root.Open(file)
	if err != nil {
		return 0, false // none of the files has to exist
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) != 2 || fields[1] != name {
			continue
		}
		base := 10
		if digits, hex := strings.CutPrefix(fields[0], "0x"); hex {
			fields[0], base = digits, 16
		}
		if id, err := strconv.ParseUint(fields[0], base, 32); err == nil {
			return id, true
		}
	}
	return 0, false
}
