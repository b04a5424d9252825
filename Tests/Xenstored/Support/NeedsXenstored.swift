import Testing

extension Trait where Self == ConditionTrait {
  /// Skips a test where there is no xenstored, and says why.
  package static var needsXenstored: Self {
    .enabled(if: Xenstored.absence == nil, Comment(rawValue: Xenstored.absence ?? "there is a xenstored"))
  }
}
