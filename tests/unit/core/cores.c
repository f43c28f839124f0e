#include "support/test.h"

#include "core/cores.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/rpcrew-cores-XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[200];
    (void)snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static unsigned cores(const char *group)
{
    char path[200];
    write_file("group", group);
    (void)snprintf(path, sizeof path, "%s/group", root);
    return crew_cores(root, path);
}

static void the_least_that_some_group_allows(void **state)
{
    (void)state;
    char path[200];
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    unsigned all = (unsigned)CPU_COUNT(&set);
    assert_non_null(mkdtemp(root));
    (void)snprintf(path, sizeof path, "%s/a", root);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/a/b", root);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(cores("0::/a/b\n"), all); /* no limit anywhere */
    assert_int_equal(cores("9:cpu:/a\n"), all);
    assert_int_equal(cores(""), all);
    assert_int_equal(crew_cores("/nowhere", "/nowhere/either"), all);
    write_file("a/b/cpu.max", "max 100000\n");
    assert_int_equal(cores("0::/a/b\n"), all);
    write_file("a/cpu.max", "50000 100000\n"); /* of the group around it */
    assert_int_equal(cores("1:name=systemd:/\n0::/a/b\n"), 1);
    write_file("a/cpu.max", "900000 1000\n"); /* more than there are */
    assert_int_equal(cores("0::/a/b\n"), all);
    write_file("cpu.max", "1000 1000\n"); /* a container's own root */
    assert_int_equal(cores("0::/\n"), 1);
    if (all > 1) {
        write_file("cpu.max", "100001 100000\n");
        assert_int_equal(cores("0::/\n"), 2);
    }
    write_file("cpu.max", "nonsense\n");
    assert_int_equal(cores("0::/\n"), all);
    static const char *const files[] = { "a/b/cpu.max", "a/cpu.max", "cpu.max", "group", "a/b", "a", "" };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", root, files[i]);
        assert_int_equal(remove(path), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_least_that_some_group_allows) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
