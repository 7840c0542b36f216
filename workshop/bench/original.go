// The container that these steps go back to, a few lines of Go, rebuilt from
// its description: `run` starts /proc/self/exe in new namespaces, and `child`
// sets the host name, changes root, mounts /proc and runs the command.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: original run CMD [ARGS]...")
		os.Exit(2)
	}
	switch os.Args[1] {
	case "run":
		run()
	case "child":
		child()
	}
}

func run() {
	fmt.Fprintf(os.Stderr, "running %v as %d\n", os.Args[2:], os.Getpid())
	arguments := append([]string{"child"}, os.Args[2:]...)
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWNS,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{
			{ContainerID: 0, HostID: os.Geteuid(), Size: 1},
		}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{
			{ContainerID: 0, HostID: os.Getegid(), Size: 1},
		}
	}
	must(cmd.Run())
}

func child() {
	fmt.Fprintf(os.Stderr, "running %v as %d\n", os.Args[2:], os.Getpid())
	must(syscall.Sethostname([]byte("container")))
	must(syscall.Chroot("fs"))
	must(os.Chdir("/"))
	must(syscall.Mount("proc", "proc", "proc", 0, ""))
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	must(cmd.Run())
	must(syscall.Unmount("proc", 0))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "original:", err)
		os.Exit(1)
	}
}
