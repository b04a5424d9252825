import Synchronization
import XenPlatform

/// What waits for one handle, in order, with a descriptor to sleep on.
///
/// The descriptor is written to with no lock held, since whoever is woken by it wants the lock at once.
final class Mailbox<Element: Hashable & Sendable>: Sendable {
  let wakeup: Wakeup
  private let waiting = Mutex<[Element]>([])
  /// Signals that were decided on, one each time that something came where nothing was, those that were given, and of the
  /// latter those that are taken back for certain.
  private let decided = Atomic<UInt64>(0)
  private let given = Atomic<UInt64>(0)
  private let takenBack = Atomic<UInt64>(0)

  init() throws(ResourceError) { wakeup = try Wakeup() }

  func put(_ element: Element) { if enqueue(element) { wake() } }

  /// One that waits already is not put again; and where so many wait, `substitute` stands for whatever else would come.
  func putUnlessWaiting(_ element: Element, limit: Int, substitute: Element) {
    let isFirst = waiting.withLock { elements in
      let element = elements.count < limit ? element : substitute
      return !elements.contains(element) && append(element, to: &elements)
    }
    if isFirst { wake() }
  }

  var count: Int { waiting.withLock(\.count) }

  /// - Returns: whether ``wake()`` must follow, once the caller holds no lock.
  func enqueue(_ element: Element) -> Bool { waiting.withLock { append(element, to: &$0) } }

  private func append(_ element: Element, to elements: inout [Element]) -> Bool {
    elements.append(element)
    guard elements.count == 1 else { return false }
    decided.wrappingAdd(1, ordering: .releasing)
    return true
  }

  func wake() {
    wakeup.signal()
    given.wrappingAdd(1, ordering: .releasing)
  }

  /// A process that was killed gets nothing more.
  func take(by process: LoopbackProcess) -> Element? {
    guard decided.load(ordering: .acquiring) != takenBack.load(ordering: .relaxed) else { return nil }
    return waiting.withLock { elements in
      // Most of the time the first is the last, and nothing has to be moved.
      let element = process.isKilled ? nil : elements.count > 1 ? elements.removeFirst() : elements.popLast()
      if element == nil { elements.removeAll(keepingCapacity: true) }
      if elements.isEmpty {
        // First: a signal that is still on its way is looked for again next time, and wakes somebody for nothing.
        let count = given.load(ordering: .acquiring)
        wakeup.clear()
        takenBack.store(count, ordering: .relaxed)
      }
      return element
    }
  }
}
