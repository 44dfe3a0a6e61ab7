# Builds the compiler (build/segc), the runtime (build/segrun) and the tests.
#
#   make            both programs               make check    all tests
#   make deps       missing Debian packages     make bless    rewrites the goldens: review the diff
#   make demo       trains a small U-Net        make codediff AGAINST=REF: emitted source, then and now
#   make bench      times the networks here     make fuzz       every reader, a minute each (clang)
#   make install PREFIX=/usr/local DESTDIR=     make clean
#   make library    libsegrun.so, for other programs (docs/embedding.md)
#
# CC=clang works as well. CXX is needed for tests/simt/ alone, the emulator of a CUDA device; without
# one those tests are skipped. SAN=1 builds everything with AddressSanitizer and
# UndefinedBehaviorSanitizer in build-san/; LEAN=1 builds in build-lean/ what needs no library but
# libc: segc, segbench and the tests for a GPU, which bench/gpu.sh runs. The runtime never links an
# object of the compiler, and the compiler of the runtime only files.a, which reads and writes files
# (runtime/files.h): each is an archive of its own, and tests may link both.
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules

CC = gcc
CXX = g++
OPTIMISE = -O2 -g
WARNINGS = -Wall -Wextra -Wshadow -Werror
PREFIX = /usr/local
SAN =
LEAN =
FUZZ =

B := build$(if $(SAN),-san)$(if $(LEAN),-lean)$(if $(FUZZ),-fuzz)
ifneq ($(SAN),)
OPTIMISE = -O1 -g -fno-omit-frame-pointer
SANITISE = -fsanitize=address,undefined -fno-sanitize-recover=all
endif
ifneq ($(FUZZ),)
CC = clang
OPTIMISE = -O1 -g -fno-omit-frame-pointer
SANITISE = -fsanitize=address,undefined,fuzzer-no-link
endif
CFLAGS = -std=gnu17 $(OPTIMISE) $(WARNINGS) $(SANITISE) -MMD -MP
CPPFLAGS = -D_GNU_SOURCE=
LDFLAGS = $(SANITISE)
pkg = $(shell pkg-config $(1) $(2) 2>/dev/null)
RUNTIME_PACKAGES = libpng libjpeg cairo jansson libxxhash
RUNTIME_LIBS = $(call pkg,--libs,$(RUNTIME_PACKAGES)) -lgif -ldl -lpthread -lm
# Kept though nothing here calls it: kernels do, and its threads must outlive the first library of
# kernels that is unloaded.
COMPILER_LIBS = $(call pkg,--libs,jansson libxxhash) $(if $(ONNX),$(call pkg,--libs,libprotobuf-c)) -lm
TEST_LIBS = $(call pkg,--libs,cmocka)

# Without protobuf-c segc is built as well, and says so when it is asked for ONNX.
ONNX := $(if $(LEAN),,$(shell pkg-config --exists libprotobuf-c && command -v protoc-c))
ONNX_C := $(if $(ONNX),$(filter-out %/absent.c,$(wildcard compiler/onnx/*.c)),compiler/onnx/absent.c)
COMPILER_C := $(wildcard compiler/*.c) $(ONNX_C)
RUNTIME_C := $(wildcard runtime/*.c)
KERNEL_FILES := $(wildcard compiler/kernels/*/*.c compiler/kernels/*/*.h compiler/kernels/*/*.cu)
TESTS_C := $(wildcard tests/test_*.c tests/*/test_*.c)
SUPPORT_C := $(filter-out $(TESTS_C),$(wildcard tests/*.c))
SIMT_C := $(filter-out $(TESTS_C),$(wildcard tests/simt/*.c))
SIMT_CC := $(wildcard tests/simt/*.cc)
# Fibers are nothing for the sanitizers.
ifneq ($(SAN)$(if $(shell command -v $(firstword $(CXX))),,none),)
TESTS_C := $(filter-out tests/simt/%,$(TESTS_C))
endif

FILES_C := $(wildcard $(addprefix runtime/,error.c file.c params.c safetensors*.c))
# The runtime without pictures, plots and segrun's command line.
CORE_C := $(wildcard $(addprefix runtime/,system.c plan*.c executor*.c initial.c parallel.c peak.c \
            device*.c host_*.c kernel_*.c bench_measure.c bench_report.c bench_trace.c trace.c)) $(FILES_C)
PROGRAMS = segc segrun
# libsegrun: the core behind the functions of segrun.h.
LIBRARY_C := $(filter-out runtime/bench_% runtime/trace.c runtime/plan_graph.c,$(CORE_C)) runtime/libsegrun.c
LIBRARY_VERSION = 0
ifneq ($(LEAN),)
PROGRAMS = segc segbench
RUNTIME_C := $(CORE_C)
RUNTIME_PACKAGES =
RUNTIME_LIBS = -ldl -lpthread -lm
COMPILER_LIBS = -lm
TEST_LIBS =
TESTS_C := $(wildcard tests/gpu/test_*.c)
endif

# One short line a file; V=1 shows the commands.
say = $(if $(V),,@echo "  $(1)  $(@:$(B)/%=%)"; )
object = $(patsubst %.c,$(B)/obj/%.o,$(1))
COMPILER_O := $(call object,$(filter-out compiler/main.c,$(COMPILER_C))) \
              $(B)/obj/grammar/seg.tab.o $(B)/obj/grammar/seg.lex.o $(B)/obj/kernel_texts.o \
              $(if $(ONNX),$(B)/obj/onnx.pb-c.o)
RUNTIME_O := $(call object,$(filter-out runtime/main.c,$(RUNTIME_C)))
SIMT_O := $(call object,$(SIMT_C)) $(patsubst %.cc,$(B)/obj/%.o,$(SIMT_CC))
TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(TESTS_C))

# ---- programs ------------------------------------------------------------------------------------

.PHONY: all tests library deps check bless demo bench codediff install clean missing
library: $(B)/libsegrun.so.$(LIBRARY_VERSION)
all: $(addprefix $(B)/,$(PROGRAMS))
tests: $(TESTS) $(if $(LEAN),,$(B)/benchtable)

$(B)/segc: $(B)/obj/compiler/main.o $(B)/compiler.a $(B)/files.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(COMPILER_LIBS)
$(B)/segrun: $(B)/obj/runtime/main.o $(B)/runtime.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(RUNTIME_LIBS)
$(B)/segbench $(B)/pictures: $(B)/%: $(B)/obj/bench/%.o $(B)/runtime.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(RUNTIME_LIBS)
$(B)/benchtable: $(B)/obj/bench/table.o
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(RUNTIME_LIBS)
$(B)/compiler.a: $(COMPILER_O)
$(B)/runtime.a: $(RUNTIME_O)
$(B)/files.a: $(call object,$(FILES_C))
$(B)/support.a: $(call object,$(SUPPORT_C))
$(B)/%.a:
	@rm -f $@
	@ar rcs $@ $^

$(B)/libsegrun.so.$(LIBRARY_VERSION): $(patsubst %.c,$(B)/pic/%.o,$(LIBRARY_C))
	$(call say,LINK)$(CC) $(LDFLAGS) -shared -Wl,-soname,$(@F) -Wl,--no-undefined -o $@ $^ -ldl -lpthread -lm

$(B)/tests/%: $(B)/obj/tests/%.o $(B)/support.a $(B)/compiler.a $(B)/runtime.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(RUNTIME_LIBS) $(COMPILER_LIBS) $(TEST_LIBS)

# Kernels of the emulator call it back.
$(B)/tests/simt/%: $(B)/obj/tests/simt/%.o $(SIMT_O) $(B)/support.a $(B)/compiler.a $(B)/runtime.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CXX) $(LDFLAGS) -rdynamic -o $@ $^ $(RUNTIME_LIBS) $(COMPILER_LIBS) $(TEST_LIBS)

$(filter $(B)/tests/onnx/%,$(TESTS)): $(B)/obj/tests/onnx/onnx_file.o
$(B)/obj/tests/onnx/%.o $(B)/obj/tests/fuzz/%.o: CPPFLAGS += -I$(B)/onnx

# Stand-ins for CUDA's libraries.
CUDA_STUBS := $(addprefix $(B)/cuda_stub/,libcuda.so.1 libnvrtc.so.13 libcublas.so.13)
$(filter $(B)/tests/cuda_stub/%,$(TESTS)): $(B)/obj/tests/cuda_stub/tiny.o | $(CUDA_STUBS)
$(B)/cuda_stub/libcuda.so.1: tests/cuda_stub/stub_cuda.c tests/cuda_stub/stub_queue.c
$(B)/cuda_stub/libnvrtc.so.13: tests/cuda_stub/stub_nvrtc.c
$(B)/cuda_stub/libcublas.so.13: tests/cuda_stub/stub_cublas.c
$(CUDA_STUBS): $(wildcard tests/cuda_stub/*.h)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(CPPFLAGS) -I. $(filter-out -MMD -MP,$(CFLAGS)) -fPIC -shared -o $@ \
	    $(filter %.c,$^)

# Each reader with libFuzzer: everything built once more by clang.
FUZZERS := $(patsubst tests/fuzz/%.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))
.PHONY: fuzz fuzzers
fuzzers: $(FUZZERS) $(B)/seeds
$(B)/fuzz_image: LDFLAGS += -Wl,--wrap=image_allocate
$(B)/seeds: $(B)/obj/tests/fuzz/seeds.o $(B)/compiler.a $(B)/runtime.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(RUNTIME_LIBS) $(COMPILER_LIBS)
$(B)/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/compiler.a $(B)/runtime.a
	$(call say,LINK)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(RUNTIME_LIBS) $(COMPILER_LIBS)

# ---- objects -------------------------------------------------------------------------------------

$(B)/obj/compiler/%.o: compiler/%.c | $(B)/grammar/seg.tab.h
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) -Icompiler -I$(B)/grammar -I$(B)/onnx $(CFLAGS) -c -o $@ $<
$(B)/obj/runtime/%.o: runtime/%.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) $(call pkg,--cflags,$(RUNTIME_PACKAGES)) $(CFLAGS) -c -o $@ $<
$(B)/pic/runtime/%.o: runtime/%.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -fvisibility=hidden -c -o $@ $<
$(B)/obj/bench/%.o: bench/%.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) -Iruntime $(CFLAGS) -c -o $@ $<
$(B)/obj/tests/%.o: tests/%.c | $(B)/grammar/seg.tab.h
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) $(call pkg,--cflags,$(RUNTIME_PACKAGES)) -I. -Itests -Icompiler -I$(B)/grammar $(CFLAGS) -fopenmp -c -o $@ $<

$(B)/obj/tests/simt/%.o: tests/simt/%.cc
	@mkdir -p $(@D)
	$(call say,CXX )$(CXX) -std=c++17 $(OPTIMISE) $(WARNINGS) -MMD -MP -c -o $@ $<

# The grammar. What flex and bison write keeps their own style, so shadowing is not asked of it.
$(B)/grammar/seg.tab.h: $(B)/grammar/seg.tab.c
$(B)/grammar/seg.tab.c: grammar/seg.y
	@mkdir -p $(@D)
	$(call say,YACC)bison -Werror --defines=$(B)/grammar/seg.tab.h -o $@ $<
$(B)/grammar/seg.lex.h: $(B)/grammar/seg.lex.c
$(B)/grammar/seg.lex.c: grammar/seg.l
	@mkdir -p $(@D)
	$(call say,LEX )flex --header-file=$(B)/grammar/seg.lex.h -o $@ $<
$(B)/obj/grammar/%.o: $(B)/grammar/%.c | $(B)/grammar/seg.tab.h $(B)/grammar/seg.lex.h
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) -Icompiler -Igrammar -I$(B)/grammar $(CFLAGS) \
	    -Wno-shadow -Wno-sign-compare -Wno-unused-function -c -o $@ $<

# ONNX's messages. What protoc-c writes is C by its rules.
$(B)/onnx/onnx.pb-c.h: $(B)/onnx/onnx.pb-c.c
$(B)/onnx/onnx.pb-c.c: compiler/onnx/onnx.proto
	@mkdir -p $(@D)
	$(call say,PROTO)protoc-c --c_out=$(@D) --proto_path=$(<D) $(<F)
$(B)/obj/onnx.pb-c.o: $(B)/onnx/onnx.pb-c.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) -I$(B)/onnx $(filter-out $(WARNINGS),$(CFLAGS)) -c -o $@ $<
$(call object,$(filter-out %/absent.c,$(ONNX_C))): | $(B)/onnx/onnx.pb-c.h

# The texts of the kernel templates, inside segc. kernel_file() finds them by "host/conv.c".
$(B)/kernel_texts.c: $(KERNEL_FILES) Makefile
	@mkdir -p $(@D)
	@{ echo '/* Written by the Makefile from compiler/kernels/. */'; \
	   echo '#include "kernel_files.h"'; \
	   echo '#define TEXT(NAME, PATH) extern const char NAME[], NAME##_end[]; \'; \
	   echo '    __asm__(".section .rodata; " #NAME ": .incbin \"" PATH "\"; " \'; \
	   echo '            #NAME "_end: .byte 0; .previous")'; \
	   i=0; for file in $(KERNEL_FILES); do \
	       echo "TEXT(kernel_text_$$i, \"$$file\");"; i=$$((i+1)); done; \
	   echo 'const KernelFile kernel_files[] = {'; \
	   i=0; for file in $(KERNEL_FILES); do \
	       echo "    {\"$${file#compiler/kernels/}\", kernel_text_$$i, kernel_text_$${i}_end},"; \
	       i=$$((i+1)); done; \
	   echo '    {0, 0, 0},'; \
	   echo '};'; } > $@
$(B)/obj/kernel_texts.o: $(B)/kernel_texts.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) -Icompiler $(CFLAGS) -c -o $@ $<

-include $(shell find $(B)/obj $(B)/pic -name '*.d' 2>/dev/null)

# ---- what people and build servers run --------------------------------------------------------------

deps:
	@CC="$(CC)" .ci/install
missing:
	@CC="$(CC)" .ci/install --check || CC="$(CC)" .ci/install

jobs = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))
check: missing
	@$(MAKE) --no-print-directory $(jobs) all tests
	@$(MAKE) --no-print-directory $(jobs) SAN=1 all tests
	@tests/run.sh
bless: all
	@$(MAKE) --no-print-directory $(jobs) build/tests/test_nets build/tests/test_nvrtc
	@tests/golden/run.sh --bless
	@SEG_BLESS=1 SEG_CACHE=build/test-cache build/tests/test_nets
	@SEG_BLESS=1 SEG_NVRTC_ALL=1 SEG_CACHE=build/test-cache build/tests/test_nvrtc
demo: missing
	@$(MAKE) --no-print-directory $(jobs) all
	@tests/demo.sh
bench: missing
	@$(MAKE) --no-print-directory $(jobs) all $(B)/benchtable
	@bench/host.sh
fuzz: all
	@$(MAKE) --no-print-directory $(jobs) FUZZ=1 fuzzers
	@tests/fuzz/run.sh $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
codediff: all
	@tests/codediff.sh $(AGAINST)

SHARE = $(DESTDIR)$(PREFIX)/share
LIBDIR = $(PREFIX)/lib
install: all library
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(LIBDIR)/pkgconfig \
	    $(addprefix $(SHARE)/,seg/models seg/python man/man1 bash-completion/completions \
	        zsh/site-functions vim/vimfiles/syntax vim/vimfiles/ftdetect)
	install $(B)/segc $(B)/segrun $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(wildcard models/*.seg) $(SHARE)/seg/models
	install -m 644 runtime/segrun.h $(DESTDIR)$(PREFIX)/include
	install -m 644 runtime/segrun.py $(SHARE)/seg/python
	install $(B)/libsegrun.so.$(LIBRARY_VERSION) $(DESTDIR)$(LIBDIR)
	ln -sf libsegrun.so.$(LIBRARY_VERSION) $(DESTDIR)$(LIBDIR)/libsegrun.so
	sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|' runtime/libsegrun.pc.in \
	    > $(DESTDIR)$(LIBDIR)/pkgconfig/libsegrun.pc
	install -m 644 docs/shell/completion.bash $(SHARE)/bash-completion/completions/segrun
	ln -sf segrun $(SHARE)/bash-completion/completions/segc
	sed 's|@FILE@|$(PREFIX)/share/bash-completion/completions/segrun|' docs/shell/completion.zsh \
	    > $(SHARE)/zsh/site-functions/_seg
	install -m 644 docs/editors/vim/syntax/seg.vim $(SHARE)/vim/vimfiles/syntax
	install -m 644 docs/editors/vim/ftdetect/seg.vim $(SHARE)/vim/vimfiles/ftdetect
	$(B)/segc --man > $(SHARE)/man/man1/segc.1
	$(B)/segrun --man > $(SHARE)/man/man1/segrun.1
	for page in $$($(B)/segrun --man | tr -d '\\' | grep -o 'segrun-[a-z-]*'); do \
	    $(B)/segrun --man $${page#segrun-} > $(SHARE)/man/man1/$$page.1 || exit 1; done
clean:
	rm -rf build build-san build-fuzz
