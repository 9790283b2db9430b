"""Translate PTX to C++: a register is an element of an array, an instruction a call of ``machine.h``."""

import re
from dataclasses import dataclass
from pathlib import Path

MACHINE = Path(__file__).with_name("machine.h")
GAP = 256  # bytes between shared variables, where nothing may be touched
BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}
# What an opcode may have between its name and its types; others would change what it does.
MODIFIER = re.compile(
    r"rn|ftz|sat|lo|hi|wide|uni|sync|param|global|shared|to|nc|cs|v2|v4|eq|ne|lt|le|gt|ge|"
    r"[busf](8|16|32|64)|b?f16(x2)?|pred"
)


@dataclass
class Instruction:
    """One instruction of PTX."""

    text: str  # without its predicate
    line: int  # of the CUDA source
    block: int  # basic block, in the order of the text


@dataclass
class Kernel:
    """A kernel in C++, and what its report is read with."""

    code: str
    parameters: int
    shared_bytes: int
    instructions: list[Instruction]
    blocks: int


def translate(ptx, name):
    """Translate the kernel ``name`` of a PTX text."""
    entry = re.search(rf"\.entry {name}\((.*?)\)(.*?)\n\{{(.*?)\n\}}", ptx, re.DOTALL)
    parameters = re.findall(r"(\w+_param_\d+)", entry[1])
    # Half of a register is taken by moving the other into one that is declared beside it.
    body = re.sub(r"\{ \.reg \.b\d+ tmp; (.*?;) \}", r"\1", re.sub(r"//.*", "", entry[3]))
    declarations, shared_end, shared_bytes = _declare_shared(body)
    registers = "".join(f"u64 {name}[{count}]; " for name, count in re.findall(r"\.reg \.\w+\s+%(\w+)<(\d+)>", body))
    targets = set(re.findall(r"bra\S*\s+(\$\w+);", body))
    lines, instructions, barriers, block, source_line = [], [], 0, 0, 0
    for kind, *parts in _statements(body):
        if kind == "line":
            source_line = int(parts[0])
        elif kind == "label" and parts[0] in targets:
            block += 1
            lines.append(f"{parts[0]}: {_enter(block)}")
        elif kind == "instruction":
            predicate, opcode, operands = parts
            number = len(instructions)
            instructions.append(Instruction(f"{opcode} {', '.join(operands)}", source_line, block))
            if opcode == "bar.sync":
                barriers += 1
                code = f"return {barriers}; barrier_{barriers}:"
            else:
                code = _instruction(number, opcode, operands, parameters)
            lines.append(f"if ({predicate}) {code}" if predicate else code)
            if opcode == "bar.sync" or (predicate and opcode.startswith("bra")):
                block += 1
                lines.append(_enter(block))
    cases = "".join(f"case {i}: goto barrier_{i}; " for i in range(1, barriers + 1))
    code = f"""
#define BLOCKS {block + 1}
#define ACCESSES {len(instructions)}
#define SHARED_BYTES {shared_end + GAP}
#include <cstdint>
typedef uint64_t u64;
{declarations}
#include "{MACHINE}"
enum {{ ENDED = -1 }};
struct Thread {{
s32 barrier;
u64 tmp;
{registers}
s32 run(const u64* args) {{
switch (barrier) {{ {cases}}}
{_enter(0)}
{chr(10).join(lines)}
}}
}};
#include "{MACHINE}"
"""
    return Kernel(code, len(parameters), shared_bytes, instructions, block + 1)


def _statements(body):
    """Read a kernel's body: (line, number of it), (label, name) or (instruction, predicate, opcode, operands)."""
    for text in body.splitlines():
        if location := re.match(r"\s*\.loc\s+\d+ (\d+)", text):
            yield "line", location[1]
        elif label := re.match(r"\s*(\$\w+):", text):
            yield "label", label[1]
        elif parts := re.match(r"\s*(?:@(!?)%(p\d+)\s+)?([a-z][\w.]*)\s*([^;]*);", text):
            negated, predicate, opcode, rest = parts.groups()
            operands = [part.strip() for part in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", rest)]
            unknown = [x for x in opcode.split(".")[1:] if not MODIFIER.fullmatch(x)]
            if unknown:
                raise NotImplementedError(text.strip())
            yield "instruction", predicate and negated + _register(predicate), opcode, operands
        elif text.strip() and not re.match(r"\s*\.(reg|shared|pragma)", text):
            raise NotImplementedError(text.strip())


def _declare_shared(body):
    """Place the shared variables apart, where each is aligned as it asks for and no better; and count their bytes."""
    lines, ranges, end, size = [], [], 0, 0
    for alignment, bits, name, length in re.findall(r"\.shared \.align (\d+) \.[bufs](\d+) (\w+)(?:\[(\d+)\])?;", body):
        alignment, length = int(alignment), BYTES[bits] * int(length or 1)
        start = -(-(end + GAP) // (2 * alignment)) * 2 * alignment + alignment
        lines.append(f"static const u64 {name} = {start};")
        end, size = start + length, -(-size // alignment) * alignment + length
        ranges.append(f"{{{start}, {end}}}")
    lines.append(f"static const u64 VARIABLES[][2] = {{{', '.join(ranges) or '{0, 0}'}}};")
    return "\n".join(lines), end, size


def _enter(block):
    return f"if (lost({block})) return ENDED;"


def _register(name):
    return re.sub(r"([a-z]+)(\d+)$", r"\1[\2]", name)


def _value(operand):
    """Write the bits of an operand: a register, a number, or the address of a shared variable."""
    special = {"%tid.x": "tid", "%ntid.x": "ntid", "%ctaid.x": "ctaid"}
    if operand in special:
        return special[operand]
    if operand.startswith("%"):
        return _register(operand[1:])
    if re.match(r"0[fd][0-9A-F]+$", operand):
        return f"0x{operand[2:]}ull"
    return f"(u64){operand}ll" if re.match(r"-?\d", operand) else operand


def _members(operand):
    return operand.strip("{}").replace(" ", "").split(",")


def _instruction(number, opcode, operands, parameters):
    """Translate one instruction but ``bar.sync``."""
    name, *modifiers = opcode.split(".")
    if name == "bra":
        return f"goto {operands[0]};"
    if name in ("ret", "exit"):
        return "return ENDED;"
    if opcode.startswith("ld.param"):
        place = parameters.index(operands[1].strip("[]"))
        return f"{_value(operands[0])} = bits(as<{modifiers[-1]}>(args[{place}]));"
    if name in ("ld", "st"):
        return _access(number, name, modifiers, operands)
    if name == "mov" and "{" in operands[0]:
        low, high = _members(operands[0])
        half = {"b32": 16, "b64": 32}[modifiers[-1]]
        value, mask = _value(operands[1]), hex(2**half - 1)
        return f"{{ const u64 x = {value}; {_value(low)} = x & {mask}; {_value(high)} = x >> {half} & {mask}; }}"
    if name == "mov" and "{" in operands[1]:
        low, high = (_value(x) for x in _members(operands[1]))
        half = {"b32": 16, "b64": 32}[modifiers[-1]]
        return f"{_value(operands[0])} = ({low} & {hex(2**half - 1)}) | {high} << {half};"
    return f"{_value(operands[0])} = bits({_call(name, modifiers, [_value(x) for x in operands[1:]])});"


def _access(number, name, modifiers, operands):
    space, kind = modifiers[0], modifiers[-1]
    place, values = (operands[1], operands[0]) if name == "ld" else operands
    values, size = _members(values), BYTES[kind[1:]]
    base, _, offset = place.strip("[]").partition("+")
    code = f"{{ u8* const at = {space}_memory({number}, {_value(base)} + {offset or 0}ll, {size * len(values)}, "
    code += f"{'true' if name == 'st' else 'false'}); "
    for i, value in enumerate(values):
        register, where = _value(value), f"at + {i * size}"
        code += f"{register} = fetch<{kind}>({where}); " if name == "ld" else f"put<{kind}>({where}, {register}); "
    return code + "}"


def _call(name, modifiers, values):
    """Write the call that computes an instruction's result."""
    kind, kinds = modifiers[-1], None
    if name == "cvta":
        name = "mov"
    elif name == "cvt":
        to = modifiers[-2]
        name, kinds = (f"cvt_pair<{to[:-2]}>", [kind] * 2) if to.endswith("x2") else (f"cvt<{to}, {kind}>", [kind])
    elif name == "setp" or (name in ("mul", "mad") and modifiers[0] in ("lo", "hi", "wide")):
        name += f"_{modifiers[0]}"
    if name in ("shl", "shr", "bfe"):
        kinds = [kind, "u32", "u32"][: len(values)]
    elif name == "selp":
        kinds = [kind, kind, "pred"]
    kinds = kinds or [kind] * len(values)
    flush, clamp = ("ftz" if "ftz" in modifiers else ""), ("sat" if "sat" in modifiers else "")
    arguments = ", ".join(f"{flush}(as<{k}>({value}))" for k, value in zip(kinds, values, strict=True))
    generic = name if "<" in name else f"{name}<{kind}>"
    return f"{clamp}({flush}(op_{generic}({arguments})))"
