/* How many cores this process may keep busy. */
#ifndef CORE_CORES_H
#define CORE_CORES_H

/* Those that it may run on, or fewer where its control group, or one around it, has less CPU time (a
 * container's limit, systemd's CPUQuota); at least 1. root: where Linux's control groups (version 2) are
 * mounted; group: the file that names its own. */
unsigned crew_cores(const char *root, const char *group);

#endif
