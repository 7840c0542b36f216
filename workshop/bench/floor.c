// The floor of the comparison: the system calls of step06, one clone(2)
// instead of unshare(2), fork(2) and a second execve(2), no library but libc,
// and no message. With `-g FOLDER`, once or more, also those of step07: it
// makes a control group in FOLDER, limits it, joins it and removes it. With
// `-x` it starts itself once more, as the steps do, which shows what of the
// difference is that.
//
//     cc -O2 -static -o floor floor.c && ./floor fs /bin/true
//
// It is a measure, not a container: what goes wrong ends it with a line, and
// leaves a group behind where it had made one.

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define STACK (64 * 1024)
#define GROUPS 4

static const char *root;
static char **command;
static int joined[GROUPS];
static int groups;

static void try(const char *what, long result)
{
	if (result < 0)
		err(125, "%s", what);
}

static void write_file(int folder, const char *name, const char *text)
{
	int file = openat(folder, name, O_WRONLY | O_CLOEXEC);
	try(name, file);
	try(name, write(file, text, strlen(text)));
	close(file);
}

// Whoever has no CAP_SYS_ADMIN takes a user namespace first.
static void map_ids(uid_t uid, gid_t gid)
{
	char line[64];
	write_file(AT_FDCWD, "/proc/self/setgroups", "deny");
	snprintf(line, sizeof line, "0 %u 1", gid);
	write_file(AT_FDCWD, "/proc/self/gid_map", line);
	snprintf(line, sizeof line, "0 %u 1", uid);
	write_file(AT_FDCWD, "/proc/self/uid_map", line);
}

static int status_of(pid_t process)
{
	int status;
	while (waitpid(process, &status, 0) < 0)
		if (errno != EINTR)
			err(125, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void make_devices(void)
{
	static const char *const names[] = {
		"null", "zero", "full", "random", "urandom", "tty",
	};
	static const char *const links[][2] = {
		{ "/proc/self/fd", "/dev/fd" },
		{ "/proc/self/fd/0", "/dev/stdin" },
		{ "/proc/self/fd/1", "/dev/stdout" },
		{ "/proc/self/fd/2", "/dev/stderr" },
	};
	char host[32], inside[32];
	try("tmpfs", mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC,
			   "mode=755,size=64k"));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(host, sizeof host, "/../dev/%s", names[i]);
		snprintf(inside, sizeof inside, "/dev/%s", names[i]);
		int file = open(inside, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
		try(inside, file);
		close(file);
		try(inside, mount(host, inside, NULL, MS_BIND, NULL));
	}
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		try(links[i][1], symlink(links[i][0], links[i][1]));
}

// PID 1, in a program started anew.
static int again(void *unused)
{
	(void)unused;
	char *arguments[] = { "floor", "-c", (char *)root, NULL };
	char **both = calloc(256, sizeof *both);
	size_t count = 3;
	if (!both)
		err(125, "calloc");
	memcpy(both, arguments, sizeof arguments);
	for (char **word = command; *word && count < 255; word++)
		both[count++] = *word;
	execve("/proc/self/exe", both, environ);
	err(125, "/proc/self/exe");
}

// PID 1.
static int child(void *unused)
{
	(void)unused;
	char proc[PATH_MAX];
	try("pdeathsig", prctl(PR_SET_PDEATHSIG, SIGKILL));
	for (int i = 0; i < groups; i++) {
		try("join", write(joined[i], "0", 1));
		close(joined[i]);
	}
	if (groups)
		try("unshare", unshare(CLONE_NEWCGROUP));
	try("sethostname", sethostname("container", 9));
	try("private", mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));
	try("bind", mount(root, root, NULL, MS_BIND | MS_REC, NULL));
	snprintf(proc, sizeof proc, "%s/proc", root);
	try("proc", mount("proc", proc, "proc",
			  MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
	try("chdir", chdir(root));
	try("pivot_root", syscall(SYS_pivot_root, ".", "."));
	make_devices();
	try("umount2", umount2("/..", MNT_DETACH));
	try("chdir", chdir("/"));
	try("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	pid_t process = vfork();
	try("fork", process);
	if (process == 0) {
		execve(command[0], command, environ);
		_exit(127);
	}
	return status_of(process);
}

int main(int count, char **arguments)
{
	int folders[GROUPS], made[GROUPS], option, twice = 0, inner = 0;
	int flags = CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNS;
	struct termios settings;
	char name[32];

	snprintf(name, sizeof name, "floor-%d", getpid());
	while ((option = getopt(count, arguments, "+cxg:")) > 0) {
		inner |= option == 'c';
		twice |= option == 'x';
		if (option == '?')
			exit(2);
		if (option != 'g')
			continue;
		if (groups == GROUPS)
			errx(2, "too many groups");
		int folder = open(optarg, O_PATH | O_DIRECTORY | O_CLOEXEC);
		try(optarg, folder);
		try(name, mkdirat(folder, name, 0777));
		int group = openat(folder, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		try(name, group);
		// One folder for each controller, or one for all.
		if (faccessat(group, "pids.max", F_OK, 0) == 0)
			write_file(group, "pids.max", "10");
		if (faccessat(group, "memory.max", F_OK, 0) == 0)
			write_file(group, "memory.max", "52428800");
		if (faccessat(group, "memory.limit_in_bytes", F_OK, 0) == 0)
			write_file(group, "memory.limit_in_bytes", "52428800");
		joined[groups] =
			openat(group, "cgroup.procs", O_WRONLY | O_CLOEXEC);
		try("cgroup.procs", joined[groups]);
		folders[groups] = folder;
		made[groups++] = group;
	}
	if (count - optind < 2)
		errx(2, "usage: floor [-x] [-g FOLDER]... ROOT CMD [ARG]...");
	root = realpath(arguments[optind], NULL);
	if (!root)
		err(125, "%s", arguments[optind]);
	command = arguments + optind + 1;
	if (inner)
		return child(NULL);

	if (tcgetattr(STDIN_FILENO, &settings) == 0)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &settings);
	if (geteuid() != 0) {
		uid_t uid = geteuid();
		gid_t gid = getegid();
		try("unshare", unshare(CLONE_NEWUSER));
		map_ids(uid, gid);
	}
	char *stack = malloc(STACK);
	if (!stack)
		err(125, "malloc");
	pid_t process = clone(twice ? again : child, stack + STACK,
			      flags | SIGCHLD, NULL);
	try("clone", process);
	int status = status_of(process);
	for (int i = 0; i < groups; i++) {
		close(made[i]);
		while (unlinkat(folders[i], name, AT_REMOVEDIR) < 0)
			if (errno != EBUSY)
				err(125, "%s", name);
	}
	return status;
}
