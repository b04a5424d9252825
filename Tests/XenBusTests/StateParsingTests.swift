import Testing
import XenBus

/// X1: the nine states, and what is none of them.
struct StateParsingTests {
  @Test(arguments: XenbusState.allCases)
  func everyStateReadsBackAsItself(state: XenbusState) {
    #expect(XenbusState(key: String(state.rawValue)) == state)
  }

  @Test func statesHaveTheHeadersNumbers() {
    #expect(XenbusState.allCases.map(\.rawValue) == [0, 1, 2, 3, 4, 5, 6, 7, 8])
  }

  @Test(arguments: [
    "", "9", "-1", "+4", "04", "4 ", " 4", "4\n", "4\0", "0x4", "256", "260", "99999999999999999999", "four", "\u{664}",
  ])
  func whateverIsNoStateIsUnknown(text: String) { #expect(XenbusState(key: text) == .unknown) }

  @Test func absentKeyIsUnknown() { #expect(XenbusState(key: nil) == .unknown) }
}
