/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * A plugin for QEMU that counts instructions, and bytes loaded and stored, and prints the three on
 * standard error when the program ends, and whenever it asks for the process group of process MARK.
 * With the argument `late`, bytes are counted of code that is first met after the first such mark:
 * an interpreter's own are not then, and it starts faster. The interface is version 1 of QEMU's
 * qemu-plugin.h, of which no package brings the header. Counts are those of one thread.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct block block;
typedef struct instruction instruction;
typedef void on_block(uint64_t plugin, block *translated);
typedef void on_access(unsigned cpu, uint32_t access, uint64_t address, void *own);
typedef void on_end(uint64_t plugin, void *own);
typedef void on_call(uint64_t plugin, unsigned cpu, int64_t number, uint64_t a, uint64_t b,
                     uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h);
enum { ADD = 0, NO_REGISTERS = 0, READS_AND_WRITES = 3, GETPGID = 155, MARK = 974316 };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, on_block *call);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t plugin, on_call *call);
void qemu_plugin_register_atexit_cb(uint64_t plugin, on_end *call, void *own);
size_t qemu_plugin_tb_n_insns(const block *translated);
instruction *qemu_plugin_tb_get_insn(const block *translated, size_t index);
void qemu_plugin_register_vcpu_tb_exec_inline(block *translated, int op, void *counter, uint64_t n);
void qemu_plugin_register_vcpu_mem_cb(instruction *at, on_access *call, int registers, int which,
                                      void *own);
unsigned qemu_plugin_mem_size_shift(uint32_t access);
_Bool qemu_plugin_mem_is_store(uint32_t access);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

static uint64_t instructions, loaded, stored;
static int counts_bytes = 1;

static void count_bytes(unsigned cpu, uint32_t access, uint64_t address, void *own) {
  (void)cpu, (void)address, (void)own;
  *(qemu_plugin_mem_is_store(access) ? &stored : &loaded) += 1u << qemu_plugin_mem_size_shift(access);
}

static void count_block(uint64_t plugin, block *translated) {
  size_t length = qemu_plugin_tb_n_insns(translated);
  (void)plugin;
  qemu_plugin_register_vcpu_tb_exec_inline(translated, ADD, &instructions, length);
  for (size_t i = 0; i < length && counts_bytes; i++)
    qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(translated, i), count_bytes,
                                     NO_REGISTERS, READS_AND_WRITES, NULL);
}

static void print_counts(uint64_t plugin, void *own) {
  (void)plugin, (void)own;
  fprintf(stderr, "counted %llu %llu %llu\n", (unsigned long long)instructions,
          (unsigned long long)loaded, (unsigned long long)stored);
}

static void at_call(uint64_t plugin, unsigned cpu, int64_t number, uint64_t a, uint64_t b,
                    uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)cpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number != GETPGID || a != MARK) return;
  print_counts(plugin, NULL);
  counts_bytes = 1;
}

EXPORT int qemu_plugin_install(uint64_t plugin, const void *machine, int count, char **words) {
  (void)machine;
  counts_bytes = !(count && words[0][0] == 'l');
  qemu_plugin_register_vcpu_syscall_cb(plugin, at_call);
  qemu_plugin_register_vcpu_tb_trans_cb(plugin, count_block);
  qemu_plugin_register_atexit_cb(plugin, print_counts, NULL);
  return 0;
}
