use super::*;

#[test]
fn a_slot_is_named_as_the_server_allows() {
    assert_eq!(slot_name("20261121T024300Z-7q3f"), "backstay_20261121t024300z_7q3f");
    assert_eq!(slot_name(&"Ä".repeat(90)).len(), 63);
}
