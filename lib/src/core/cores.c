#include "core/cores.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The group's name, "/a/b", from its line "0::/a/b". */
static void read_group(const char *file_name, char group[PATH_MAX])
{
    char line[PATH_MAX];
    FILE *file = fopen(file_name, "re");
    group[0] = '\0';
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4) == 0)
            memcpy(group, line + 3, strlen(line + 3) + 1);
    }
    if (file)
        (void)fclose(file);
}

/* What cpu.max of a group allows, rounded up; UINT_MAX: all. Its text is "quota period" in microseconds, or
 * "max period". */
static unsigned cores_of_group(const char *root, const char *group)
{
    char path[PATH_MAX + 100], text[100] = "";
    (void)snprintf(path, sizeof path, "%s%s/cpu.max", root, group);
    FILE *file = fopen(path, "re");
    if (file && !fgets(text, sizeof text, file))
        text[0] = '\0';
    if (file)
        (void)fclose(file);
    char *behind;
    unsigned long quota = strtoul(text, &behind, 10), period = strtoul(behind, NULL, 10);
    unsigned long cores = quota && period ? quota / period + (quota % period != 0) : UINT_MAX;
    return cores < UINT_MAX ? (unsigned)cores : UINT_MAX;
}

unsigned crew_cores(const char *root, const char *group_file)
{
    cpu_set_t set;
    char group[PATH_MAX];
    int allowed =
        sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    unsigned cores = allowed > 0 ? (unsigned)allowed : 1;
    read_group(group_file, group);
    for (;;) {
        unsigned of_group = cores_of_group(root, group);
        cores = of_group < cores ? of_group : cores;
        char *last = strrchr(group, '/');
        if (!last)
            return cores;
        *last = '\0';
    }
}
