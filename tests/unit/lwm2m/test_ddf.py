import pytest

from lwm2m_server.errors import InvalidInput
from lwm2m_server.lwm2m import ResourceType, load_file, load_folder, load_registry, parse_ddf
from lwm2m_server.lwm2m.ddf import MAX_FILE_BYTES

GOOD = """<?xml version="1.0" encoding="UTF-8"?>
<LWM2M>
  <Object ObjectType="MODefinition">
    <Name>Lamp</Name>
    <Description1>A lamp.</Description1>
    <ObjectID>26300</ObjectID>
    <ObjectURN>urn:oma:lwm2m:x:26300</ObjectURN>
    <LWM2MVersion>1.0</LWM2MVersion>
    <ObjectVersion>1.1</ObjectVersion>
    <MultipleInstances>Multiple</MultipleInstances>
    <Mandatory>Optional</Mandatory>
    <Resources>
      <Item ID="1">
        <Name>Level</Name>
        <Operations>RW</Operations>
        <MultipleInstances>Single</MultipleInstances>
        <Mandatory>Mandatory</Mandatory>
        <Type>Integer</Type>
        <RangeEnumeration> 0..100
        </RangeEnumeration>
        <Units>/100</Units>
        <Description>How bright it is.</Description>
      </Item>
      <Item ID="0">
        <Name>Blink</Name>
        <Operations>E</Operations>
        <MultipleInstances>Single</MultipleInstances>
        <Mandatory>Optional</Mandatory>
        <Type></Type>
        <RangeEnumeration></RangeEnumeration>
        <Units></Units>
        <Description><![CDATA[Blinks <once>.]]></Description>
      </Item>
    </Resources>
    <Description2></Description2>
  </Object>
</LWM2M>
"""


def test_a_definition_is_read():
    (definition,) = parse_ddf(GOOD.encode(), "lamp.xml")
    assert (definition.id, definition.version, definition.name) == (26300, "1.1", "Lamp")
    assert definition.multiple
    assert not definition.mandatory
    assert list(definition.resources) == [0, 1]
    level = definition.resources[1]
    assert (level.operations, level.type, level.range, level.units) == (
        "RW",
        ResourceType.INTEGER,
        "0..100",
        "/100",
    )
    assert level.mandatory
    assert (level.readable, level.writable, level.executable) == (True, True, False)
    assert definition.resources[0].executable
    assert definition.resources[0].type is ResourceType.NONE
    assert definition.resources[0].description == "Blinks <once>."


def test_a_byte_order_mark_and_other_line_ends_are_taken():
    data = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert parse_ddf(data, "lamp.xml") == parse_ddf(GOOD.encode(), "lamp.xml")


def test_a_definition_without_version_is_1_0():
    text = GOOD.replace("    <ObjectVersion>1.1</ObjectVersion>\n", "")
    assert parse_ddf(text.encode(), "lamp.xml")[0].version == "1.0"


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("<Type>Integer</Type>", "<Type>Number</Type>", 18, "Type"),
        ("<Operations>RW</Operations>", "<Operations>X</Operations>", 15, "Operations"),
        ("<ObjectID>26300</ObjectID>", "<ObjectID>70000</ObjectID>", 6, "ObjectID"),
        ("<ObjectID>26300</ObjectID>", "", 3, "ObjectID"),
        ("<ObjectVersion>1.1<", "<ObjectVersion>new<", 9, "ObjectVersion"),
        ("<Name>Lamp</Name>", "<Name> </Name>", 4, "Name"),
        ("<Name>Lamp</Name>", "<Name>Lamp</Name><Name>L</Name>", 4, "Name"),
        ('ID="1"', 'ID="x"', 13, "Item"),
        ('ID="1"', 'ID="0"', 24, "Item"),
        ('<Item ID="1">', "<Item>", 13, "Item"),
        (">Mandatory<", ">Maybe<", 17, "Mandatory"),
        (">Multiple<", ">Many<", 10, "MultipleInstances"),
        ('ObjectType="MODefinition"', 'ObjectType="CommonResources"', 3, "Object"),
        ("<Type>Integer</Type>", "<Type>Integer</Typ>", 18, "well-formed"),
        ("<LWM2M>", "<!DOCTYPE LWM2M><LWM2M>", 2, "document types"),
        ("<Resources>", "<Resources><Thing/>", 12, "Thing"),
    ],
)
def test_an_error_names_file_line_and_element_and_the_way_out(old, new, line, what):
    assert old in GOOD
    with pytest.raises(InvalidInput) as caught:
        parse_ddf(GOOD.replace(old, new, 1).encode(), "lamp.xml")
    assert caught.value.field == f"lamp.xml:{line}"
    assert caught.value.message.startswith(f"lamp.xml, line {line}: ")
    assert what in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<LWM2M>",
        b"<LWM2M/>",
        b"<DDFList/>",
        b"<LWM2M><Object/></LWM2M>",
        b'<?xml version="1.0" encoding="nonsense"?><LWM2M/>',
        b'<?xml version="1.0" encoding="utf-7"?><LWM2M/>',
        b"\xff\xfe\x00",
        b"\0" * 100,
    ],
)
def test_what_is_no_definition_is_refused(data):
    with pytest.raises(InvalidInput) as caught:
        parse_ddf(data, "x.xml")
    assert caught.value.field.startswith("x.xml:")


def test_entities_are_refused_before_they_expand():
    bomb = b"<!DOCTYPE x [" + b"".join(
        b'<!ENTITY e%d "%s">' % (number, b"&e%d;" % (number - 1) * 10 if number else b"x" * 100)
        for number in range(12)
    )
    with pytest.raises(InvalidInput, match="entities"):
        parse_ddf(bomb + b"]><LWM2M>&e11;</LWM2M>", "x.xml")
    external = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><LWM2M>&e;</LWM2M>'
    with pytest.raises(InvalidInput, match="document types"):
        parse_ddf(external, "x.xml")


def test_size_depth_and_count_are_bounded():
    with pytest.raises(InvalidInput, match="larger"):
        parse_ddf(b" " * (MAX_FILE_BYTES + 1), "x.xml")
    with pytest.raises(InvalidInput, match="too deep"):
        parse_ddf(b"<a>" * 1000, "x.xml")
    with pytest.raises(InvalidInput, match="too many"):
        parse_ddf(b"<LWM2M>" + b"<a/>" * 100_000, "x.xml")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InvalidInput) as caught:
        load_file(tmp_path / "none.xml")
    assert caught.value.field.endswith("none.xml")
    with pytest.raises(InvalidInput) as caught:
        load_folder(tmp_path / "none")
    assert caught.value.field.endswith("none")


def test_the_same_definition_twice_is_one(tmp_path):
    (tmp_path / "a.xml").write_text(GOOD)
    (tmp_path / "b.xml").write_text(GOOD.replace("\n", "\r\n"))
    (tmp_path / "notes.txt").write_text("no definition")
    assert len(load_folder(tmp_path).definitions()) == 1


def test_two_different_definitions_of_one_version_are_refused(tmp_path):
    (tmp_path / "a.xml").write_text(GOOD)
    (tmp_path / "b.xml").write_text(GOOD.replace("Level", "Brightness"))
    with pytest.raises(InvalidInput, match=r"b\.xml and .*a\.xml"):
        load_folder(tmp_path)
    (tmp_path / "b.xml").write_text(GOOD.replace("Level", "Brightness").replace(">1.1<", ">1.2<"))
    assert [each.version for each in load_folder(tmp_path).definitions()] == ["1.1", "1.2"]


def test_a_users_folder_adds_and_replaces(tmp_path, objects_folder):
    (tmp_path / "lamp.xml").write_text(GOOD)
    device = (objects_folder / "3-1.0.xml").read_text()
    (tmp_path / "device.xml").write_text(device.replace("<Name>Device</Name>", "<Name>Our Device</Name>"))
    registry = load_registry(objects_folder, tmp_path)
    assert registry.get(26300).name == "Lamp"
    assert registry.get(3, "1.0").name == "Our Device"
    assert registry.get(3, "1.1").name == "Device"
    assert load_registry(objects_folder).get(26300) is None
