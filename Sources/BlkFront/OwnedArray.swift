/// A fixed number of values that cannot be copied, each used in place.
///
/// The standard library's array takes only copies; a class around each value would cost a check for exclusive access each time.
@safe struct OwnedArray<Element: ~Copyable>: ~Copyable {
  private let base: UnsafeMutablePointer<Element>
  private let capacity: Int
  private(set) var count = 0

  /// - Parameter capacity: positive.
  init(capacity: Int) {
    self.capacity = capacity
    unsafe base = .allocate(capacity: capacity)
  }

  deinit {
    unsafe base.deinitialize(count: count)
    unsafe base.deallocate()
  }

  /// - Precondition: there is room.
  mutating func append(_ element: consuming Element) {
    precondition(count < capacity, "an owned array has room")
    // Safe: within what was allocated, and nothing is there yet.
    unsafe (base + count).initialize(to: element)
    count += 1
  }

  subscript(index: Int) -> Element {
    _read {
      precondition(index >= 0 && index < count, "index out of range")
      // Safe: initialised up to the count; whoever reads has us borrowed.
      yield unsafe base[index]
    }
    _modify {
      precondition(index >= 0 && index < count, "index out of range")
      // Safe: as above, and whoever changes it has all of us for itself.
      yield unsafe &base[index]
    }
  }
}
